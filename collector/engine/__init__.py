"""The aggregator: lines in, the points of each flush window out.

    interface      what every engine does, and the limits that it keeps
    generations    a table that forgets what has not been used for a while
    heads          head -> series: the grammar, tags and cardinality limits, once per head
    accumulators   what one series gathers in one window, by kind
    interval       a window: open while lines arrive, then retired and read out in chunks
    pure           the engine in Python
    native         the engine over the compiled core: core/, _core.pyx
    native_interval  one of its windows, read out

No socket, clock, logger or store: `now` is an argument.
"""

from collector.engine.interface import NOBODY, Engine, Interval, Limits, Policed, Reader, RefusedLine
from collector.engine.pure import PureEngine

# By name, the one to be preferred first.
try:
    from collector.engine.native import NativeEngine
except ImportError as error:  # not built in this installation
    ENGINES: dict[str, type[PureEngine]] = {"python": PureEngine}
    WITHOUT_CORE = str(error)
else:
    ENGINES = {"native": NativeEngine, "python": PureEngine}
    WITHOUT_CORE = ""

__all__ = [
    "ENGINES",
    "NOBODY",
    "WITHOUT_CORE",
    "Engine",
    "Interval",
    "Limits",
    "Policed",
    "PureEngine",
    "Reader",
    "RefusedLine",
]
