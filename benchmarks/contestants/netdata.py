"""netdata with nothing but its StatsD server, as Debian's netdata-core has it."""

from __future__ import annotations

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
from benchmarks.counters import KernelCounter
from benchmarks.target import Target

_CONFIG: Final = """\
[global]
    run as user = {user}
    hostname = benchmark
[db]
    mode = ram
[directories]
    config = {directory}
    cache = {directory}/cache
    lib = {directory}/lib
    log = {directory}
    home = {directory}
[logs]
    access = none
[plugins]
    statsd = yes
    enable running new plugins = no
{off}
[health]
    enabled = no
[ml]
    enabled = no
[cloud]
    enabled = no
[registry]
    enabled = no
[web]
    bind to = {host}:{web}
[statsd]
    bind to = {scheme}:{host}:{port}
    update every (flushInterval) = {flush}
"""
_PLUGINS: Final = (
    "timex",
    "idlejitter",
    "tc",
    "diskspace",
    "proc",
    "cgroups",
    "slabinfo",
)
_OTHERS: Final = (
    "apps",
    "charts.d",
    "debugfs",
    "ebpf",
    "fping",
    "go.d",
    "ioping",
    "node.d",
    "perf",
    "python.d",
)
_SILENT: Final = {"DO_NOT_TRACK": "1", "DISABLE_TELEMETRY": "1"}


class Netdata(Contestant):
    """Its charts are kept in memory. While it flushes every 10 s, its API shows its own counts now and then
    only, so the kernel's drops have to do."""

    name = "netdata"
    tags = True

    def missing(self) -> str | None:
        """The program."""
        return None if shutil.which("netdata") else "not installed (Debian: netdata-core)"

    def version(self) -> str:
        """As it says itself."""
        return output_of(["netdata", "-V"], "?").removeprefix("netdata ")

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """In the foreground, without its other plugins, and telling nobody."""
        target, web = Target(scheme, HOST, free_port()), free_port()
        for name in ("cache", "lib"):
            (directory / name).mkdir()
        (directory / ".opt-out-from-anonymous-statistics").touch()
        config, log = directory / "netdata.conf", directory / "log"
        config.write_text(
            _CONFIG.format(
                user=output_of(["id", "-un"], "root"),
                directory=directory,
                off="\n".join(f"    {name} = no" for name in (*_PLUGINS, *_OTHERS)),
                host=HOST,
                web=web,
                scheme=scheme,
                port=target.port,
                flush=FLUSH,
            )
        )
        with child(["netdata", "-D", "-c", str(config)], log, _SILENT, directory) as process:
            wait_for(process, log, listens(target, process.pid))
            yield Running(target, process.pid, KernelCounter(target))
