"""collectd with its statsd plugin, as Debian's collectd-core has it; it flushes to Graphite."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.contestants.base import (
    FLUSH,
    HOST,
    Contestant,
    Running,
    child,
    free_port,
    listens,
    output_of,
    wait_for,
)
from benchmarks.contestants.graphite import graphite
from benchmarks.counters import KernelCounter
from benchmarks.target import Target

_CONFIG: Final = """\
BaseDir "{directory}"
PIDFile "{directory}/pid"
TypesDB "/usr/share/collectd/types.db"
Hostname "benchmark"
FQDNLookup false
Interval {flush}
LoadPlugin statsd
LoadPlugin write_graphite
<Plugin statsd>
    Host "{host}"
    Port "{port}"
    TimerPercentile 95.0
</Plugin>
<Plugin write_graphite>
    <Node "sink">
        Host "{host}"
        Port "{graphite}"
        Protocol "tcp"
    </Node>
</Plugin>
"""


class Collectd(Contestant):
    """It counts no lines, so the kernel's drops have to do."""

    name = "collectd"
    largest = 4096

    def missing(self) -> str | None:
        """The program."""
        return None if shutil.which("collectd") else "not installed (Debian: collectd-core)"

    def version(self) -> str:
        """As its help says."""
        found = re.search(r"collectd (\d[\w.]*)", output_of(["collectd", "-h"]))
        return found[1].removesuffix(".git") if found else "?"

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """In the foreground."""
        config, log = directory / "collectd.conf", directory / "log"
        target = Target(scheme, HOST, free_port())
        with graphite() as sink:
            config.write_text(
                _CONFIG.format(
                    directory=directory, flush=FLUSH, host=HOST, port=target.port, graphite=sink.port
                )
            )
            with child(["collectd", "-f", "-C", str(config)], log) as process:
                wait_for(process, log, listens(target, process.pid))
                yield Running(target, process.pid, KernelCounter(target))
