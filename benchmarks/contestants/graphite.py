"""A Graphite that takes everything, and adds up the one metric that it is told to watch."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.contestants.base import HOST


@dataclass(slots=True)
class Graphite:
    """Where servers flush to."""

    port: int
    watched: bytes
    total: float = 0.0

    def take(self, line: bytes) -> None:
        """One line: `name value time`."""
        if line.startswith(self.watched):
            self.total += float(line.split()[1])


@contextmanager
def graphite(watched: str = "-") -> Iterator[Graphite]:
    """Listens on a free port of this machine."""
    sink = Graphite(0, watched.encode())

    class Connection(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            rest = b""
            while data := self.request.recv(1 << 18):
                if sink.watched not in rest + data:  # most of it: nothing to look at line by line
                    rest = (rest + data)[-1024:].rpartition(b"\n")[2]
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    sink.take(line)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server((HOST, 0), Connection) as server:
        sink.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
