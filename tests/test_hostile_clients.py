"""The whole daemon among clients that mean no good, or have bugs: the others lose nothing.

One daemon with all four transports. While one kind of bad client is at work, calm senders go on; each of
their lines must count, and descriptors and memory must be back where they were.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import RESET, DaemonProcess, running, wait_for

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' /proc")

CALM_ADDRESS = "127.0.0.2"  # every 127.x.y.z is this machine on Linux
BAD_ADDRESS = "127.0.0.66"
CONFIG = """\
listen:
  - {{{{url: "udp://127.0.0.1:0", sender_rate: 3000}}}}
  - {{{{url: "tcp://127.0.0.1:0", sender_rate: 20000, max_connections: 100}}}}
  - {{{{url: "unixgram://{room}/g.sock", sender_rate: 1000000}}}}
  - {{{{url: "unixstream://{room}/s.sock", max_connections: 100}}}}
flush_interval: 1s
state_dir: {{state_dir}}
http: {{{{listen: "127.0.0.1:0"}}}}
"""
MEMORY = 48  # MiB that a daemon may grow by; the bad clients below send hundreds


class Target:
    """The daemon, and where its doors are."""

    def __init__(self, daemon: DaemonProcess, room: Path) -> None:
        self.daemon = daemon
        self.udp = daemon.port("udp")
        self.tcp = daemon.port("tcp")
        self.datagrams = f"{room}/g.sock"
        self.stream = f"{room}/s.sock"

    def to_udp(self, source: str = BAD_ADDRESS) -> socket.socket:
        """A connected UDP socket."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.udp))
        return sock

    def to_tcp(self, source: str = BAD_ADDRESS) -> socket.socket:
        """A TCP connection."""
        return socket.create_connection(("127.0.0.1", self.tcp), source_address=(source, 0), timeout=10)

    def to_unix(self, path: str, kind: socket.SocketKind) -> socket.socket:
        """A connected unix socket."""
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(10)
        sock.connect(path)
        return sock

    def descriptors(self) -> int:
        """How many descriptors the daemon has open."""
        return sum(1 for _ in Path(f"/proc/{self.daemon.process.pid}/fd").iterdir())

    def resident(self) -> float:
        """MiB of memory that the daemon uses."""
        pages = int(Path(f"/proc/{self.daemon.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def connections(self) -> int:
        """Open connections of all its listeners."""
        return sum(one.get("connections", 0) for one in self.daemon.get("/api/v1/status")["listeners"])


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One daemon for all of them: what one leaves behind the next would find."""
    with TemporaryDirectory(prefix="c") as name:
        room = Path(name)
        with running(tmp_path_factory.mktemp("hostile"), CONFIG.format(room=room)) as daemon:
            target = Target(daemon, room)
            for door in doors(target).values():  # what is made once is made now
                with door() as sock:
                    sock.send(b"warm:1|c\n")
            wait_for(lambda: daemon.value("warm") == 4, "the first lines")
            yield target


def doors(target: Target) -> dict[str, Callable[[], socket.socket]]:
    """A calm sender's way in, by transport."""
    return {
        "udp": lambda: target.to_udp(CALM_ADDRESS),
        "tcp": lambda: target.to_tcp(CALM_ADDRESS),
        "unixgram": lambda: target.to_unix(target.datagrams, socket.SOCK_DGRAM),
        "unixstream": lambda: target.to_unix(target.stream, socket.SOCK_STREAM),
    }


class Calm(threading.Thread):
    """A sender at each door, some hundred lines a second, until told to stop; counts what it has sent."""

    def __init__(self, target: Target, name: str) -> None:
        super().__init__()
        self.target = target
        self.metric = name
        self.sent: dict[str, int] = {}
        self.over = threading.Event()
        self.fault: Exception | None = None

    def run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                ways = {name: stack.enter_context(door()) for name, door in doors(self.target).items()}
                while not self.over.wait(0.005):
                    for name, sock in ways.items():
                        sock.sendall(f"{self.metric}.{name}:1|c\n".encode())
                        self.sent[name] = self.sent.get(name, 0) + 1
        except Exception as error:
            self.fault = error


@contextlib.contextmanager
def calm_beside(target: Target, name: str) -> Iterator[None]:
    """Calm senders while the block runs; then all their lines are there, and the daemon is as before."""
    descriptors, resident = target.descriptors(), target.resident()
    base = target.connections()
    calm = Calm(target, name)
    calm.start()
    try:
        wait_for(lambda: len(calm.sent) == 4, "calm senders at all doors")
        yield
        time.sleep(0.2)
    finally:
        calm.over.set()
        calm.join()
    assert calm.fault is None
    for transport, sent in calm.sent.items():
        metric = f"{name}.{transport}"
        wait_for(lambda metric=metric, sent=sent: target.daemon.value(metric) == sent, f"{metric} = {sent}")  # type: ignore[misc]
    wait_for(lambda: target.connections() == base, "connections to end")
    wait_for(lambda: target.descriptors() <= descriptors + 2, f"{descriptors} descriptors")
    assert target.resident() < resident + MEMORY
    assert "Traceback" not in target.daemon.log


def test_a_flood_of_datagrams_from_one_sender(target: Target) -> None:
    """Some 15,000 datagrams a second for two seconds, good and bad lines mixed."""
    with calm_beside(target, "flood.udp"), target.to_udp() as sock:
        payload = b"flood.a:1|c\nbad line\nflood.b:1|ms\n"
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for _ in range(80):
                sock.send(payload)
            time.sleep(0.005)
    drops = target.daemon.get_text("/metrics")
    shown = subprocess.run(
        [sys.executable, "-m", "collector", "status", "--url", target.daemon.url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "lines dropped: sender_rate" in shown
    assert f"most of them from {BAD_ADDRESS}" in shown
    assert (
        'collector_lines_dropped_total{listener="udp://127.0.0.1:0",reason="sender_rate",sender="loopback"} 0'
        not in drops
    )


def test_a_flood_over_one_connection(target: Target) -> None:
    """200 MB as fast as the daemon takes them, and it ends in time."""
    with calm_beside(target, "flood.tcp"), target.to_tcp() as sock:
        block = b"flood.a:1|c\n" * 80_000
        for _ in range(200):
            sock.sendall(block)


def test_thousands_of_connects_and_closes(target: Target) -> None:
    """3,000 connections, each with a line or none, closed in order or with a reset."""
    rng = random.Random(7)
    with calm_beside(target, "connects"):
        for n in range(3000):
            unix = n % 3 == 0
            with target.to_unix(target.stream, socket.SOCK_STREAM) if unix else target.to_tcp() as sock:
                if rng.random() < 0.5:
                    with contextlib.suppress(OSError):  # let in or not
                        sock.send(b"connects:1|c\n")
                if rng.random() < 0.3 and not unix:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_connections_that_say_nothing_or_little(target: Target) -> None:
    """All places taken by half-open and dribbling connections: who is calm keeps his, and new ones get in."""
    with calm_beside(target, "silent"), contextlib.ExitStack() as stack:
        bad = [stack.enter_context(target.to_tcp()) for _ in range(150)]
        for _ in range(5):
            for number, sock in enumerate(bad):
                with contextlib.suppress(OSError):
                    if number % 3 == 0:
                        sock.send(b"d")
                    elif number % 3 == 1:
                        sock.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
        for n in range(20):
            with target.to_tcp(f"127.0.1.{n + 1}") as sock:
                sock.sendall(b"late:1|c\n")
        wait_for(lambda: target.daemon.value("late") == 20, "all who came late")


def test_lines_and_frames_without_end(target: Target) -> None:
    """64 MB of one line, frames of lengths that never come, garbage: counted, and their memory given back."""
    rng = random.Random(11)
    with calm_beside(target, "endless"):
        with target.to_tcp() as sock:
            for _ in range(64):
                sock.sendall(b"x" * 2**20)
        with contextlib.ExitStack() as stack:
            for length in (2**24 - 1, 2**24 - 1, 2**31, 2**32 - 1, 70_000):
                sock = stack.enter_context(target.to_unix(target.stream, socket.SOCK_STREAM))
                with contextlib.suppress(OSError):
                    sock.sendall(struct.pack("<I", length) + b"y" * 60_000)
            for _ in range(50):
                sock = stack.enter_context(target.to_unix(target.stream, socket.SOCK_STREAM))
                with contextlib.suppress(OSError):
                    sock.sendall(rng.randbytes(5000))
        with target.to_udp() as sock:
            for _ in range(500):
                sock.send(rng.randbytes(rng.randrange(1, 1400)))
        with target.to_unix(target.datagrams, socket.SOCK_DGRAM) as sock:
            for _ in range(500):
                sock.send(rng.randbytes(rng.randrange(1, 1400)))


def test_a_client_that_never_reads_or_closes(target: Target) -> None:
    """We never answer, so a client that does not read costs nothing; its lines count like any."""
    with calm_beside(target, "deaf"), target.to_tcp("127.0.0.9") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        for _ in range(100):
            sock.sendall(b"deaf:1|c\n")
        wait_for(lambda: target.daemon.value("deaf") == 100, "its lines")
