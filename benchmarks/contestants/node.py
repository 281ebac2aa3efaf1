"""etsy's statsd, the original, from npm; it flushes to Graphite."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
from benchmarks.contestants.graphite import Graphite, graphite
from benchmarks.counters import EtsyCounter, Reading
from benchmarks.peers import NODE_STATSD
from benchmarks.target import Target

_RECEIVED = "stats.counters.statsd.metrics_received.count"


class NodeStatsd(Contestant):
    """With its defaults, but for the newer names of its Graphite backend."""

    name = "statsd (Node)"
    schemes = frozenset({"udp", "tcp"})

    def missing(self) -> str | None:
        """Node, or the package."""
        if shutil.which("node") is None:
            return "node is not installed"
        return None if NODE_STATSD.directory.exists() else NODE_STATSD.hint

    def version(self) -> str:
        """Of the package and of Node."""
        package = json.loads((NODE_STATSD.directory / "package.json").read_text())
        return f"{package['version']}, Node {output_of(['node', '--version'], '?')}"

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """Its flushes go to a Graphite of ours, which adds up what the server says it has received."""
        config, log = directory / "config.js", directory / "log"
        target, admin = Target(scheme, HOST, free_port()), free_port()
        with graphite(_RECEIVED) as sink:
            settings = {
                "servers": [{"server": f"./servers/{scheme}", "address": HOST, "port": target.port}],
                "mgmt_address": HOST,
                "mgmt_port": admin,
                "flushInterval": FLUSH * 1000,
                "backends": ["./backends/graphite"],
                "graphiteHost": HOST,
                "graphitePort": sink.port,
                "graphite": {"legacyNamespace": False},
            }
            config.write_text(json.dumps(settings))
            with child(["node", str(NODE_STATSD.directory / "stats.js"), str(config)], log) as process:
                wait_for(process, log, listens(target, process.pid))
                wait_for(process, log, listens(Target("tcp", HOST, admin), process.pid))
                yield Running(target, process.pid, _NodeCounter(admin, sink))


class _NodeCounter(EtsyCounter):
    """What was flushed, and what has come since."""

    def __init__(self, port: int, sink: Graphite) -> None:
        super().__init__(HOST, port)
        self._sink = sink

    def read(self) -> Reading:
        """Lines."""
        return Reading(int(self._sink.total) + (super().read().lines or 0))
