"""The servers that `benchmarks.compare` runs, each as a child process of its own on free ports.

base              what a contestant is; how children are started, watched and ended
graphite          where servers flush to that know nothing but Graphite
bare              the C loop that receives and counts
ours              the collector, on its compiled engine and on the one in Python
node              etsy's statsd, from npm
netdata, collectd as Debian packages them
python_servers    statsdly and navdoon, from PyPI
gnocchi           why it is not measured
"""

from benchmarks.contestants.bare import Bare
from benchmarks.contestants.base import Contestant, Running, Workload
from benchmarks.contestants.collectd import Collectd
from benchmarks.contestants.gnocchi import Gnocchi
from benchmarks.contestants.netdata import Netdata
from benchmarks.contestants.node import NodeStatsd
from benchmarks.contestants.ours import Collector
from benchmarks.contestants.python_servers import Navdoon, Statsdly

__all__ = ["Contestant", "Running", "Workload", "everyone"]


def everyone() -> list[Contestant]:
    """All contestants; the yardstick comes first."""
    return [
        Bare(),
        Collector(compiled=True),
        Collector(compiled=False),
        Netdata(),
        Collectd(),
        NodeStatsd(),
        Gnocchi(),
        Statsdly(),
        Navdoon(),
    ]
