"""`python -m benchmarks [compaction|engine|flush|ingest]...`: all of them when none is named."""

from __future__ import annotations

import platform
import sys

from benchmarks import compaction, engine, flush, ingest

_PROGRAMS = {"compaction": compaction.run, "engine": engine.run, "flush": flush.run, "ingest": ingest.run}


def main() -> int:
    """Runs the programs named on the command line; 2 for a name that is not known."""
    names = sys.argv[1:] or list(_PROGRAMS)
    if unknown := [name for name in names if name not in _PROGRAMS]:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(_PROGRAMS)}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()} ({platform.python_compiler()}), {platform.machine()}")
    for name in names:
        _PROGRAMS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
