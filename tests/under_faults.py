"""The whole daemon while connections break and processes are killed, with a truth that is exact.

Lines go over TCP, which loses nothing before the daemon. They are counted, series by series, as they are
sent: what a daemon has received when it is killed was waited for, and had been flushed. In the end the store
is asked for every series.

    driver --TCP--> collector --unix--> proxy --unix--> server
                    killed, -9          faulty          killed, -9
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import redis
from faulty import CUTS, Proxy
from harness import DaemonProcess, wait_for

from collector.embedded import find_server
from collector.model import Kind, Series
from collector.store.client import connect
from collector.store.keys import KeySpace
from collector.store.reader import Reader

COUNTERS: Final = 1_400  # of the 2,000 series; the others are shared evenly
OTHERS: Final = 200
COUNTER_LINES: Final = 24  # lines of each counter in one block
PATIENCE: Final = 90.0  # seconds until all is confirmed once the faults have ended

CONFIG: Final = """\
listen: ["tcp://127.0.0.1:0"]
flush_interval: 1s
state_dir: {state_dir}
http: {{{{listen: "127.0.0.1:0"}}}}
redis: {{{{url: "unix://{socket}"}}}}
backlog: {{{{spool: {spool}}}}}
"""


class Server:
    """A server that can be killed and started again on what it left."""

    def __init__(self, directory: Path, *options: str, program: Path | None = None) -> None:
        directory.mkdir(exist_ok=True)
        self.socket = directory / "server.sock"
        self.kills = 0
        self._command = [
            *(str(program or find_server()), "--port", "0", "--unixsocket", str(self.socket)),
            *("--dir", str(directory), "--save", "", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it has read its data."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with self.client() as client:

            def up() -> bool:
                with suppress(redis.RedisError):
                    return bool(client.ping())
                return False

            wait_for(up, "the server to answer")

    def client(self) -> redis.Redis:
        """A client beside the proxy."""
        return redis.Redis(unix_socket_path=str(self.socket))

    def kill(self) -> None:
        """kill -9; may be called from any thread, and on one that is dead."""
        if self._process is not None and self._process.poll() is None:
            self.kills += 1
            self._process.kill()

    def wait_killed(self, times: int) -> None:
        """Waits until it has been killed so many times."""
        wait_for(lambda: self.kills >= times, "the server to be killed")

    def restart(self) -> None:
        """Starts it again after a kill."""
        if self._process is not None:
            self._process.wait()
        self.start()

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Truth:
    """What was sent, by series name."""

    counters: Counter[str] = field(default_factory=Counter)
    gauges: Counter[str] = field(default_factory=Counter)
    timers: Counter[str] = field(default_factory=Counter)  # samples
    sets: dict[str, set[str]] = field(default_factory=dict)
    lines: int = 0

    @property
    def series(self) -> int:
        """How many."""
        return len(self.counters) + len(self.gauges) + len(self.timers) + len(self.sets)

    def block(self, rng: random.Random, number: int) -> bytes:
        """Lines of all series, which count as sent: increments, moves of gauges, samples, a member of each
        set.
        """
        lines = []
        for n in range(COUNTERS):
            name, value = f"chaos.counter{n:04d}", rng.randrange(1, 100)
            lines += [f"{name}:{value}|c"] * COUNTER_LINES
            self.counters[name] += value * COUNTER_LINES
        for n in range(OTHERS):
            move, member = rng.randrange(-50, 50), f"u{number % 300}-{n % 7}"
            self.gauges[f"chaos.gauge{n:03d}"] += move
            self.timers[f"chaos.timer{n:03d}"] += 1
            self.sets.setdefault(f"chaos.set{n:03d}", set()).add(member)
            lines += [f"chaos.gauge{n:03d}:{move:+d}|g", f"chaos.timer{n:03d}:{rng.randrange(1, 900)}|ms"]
            lines.append(f"chaos.set{n:03d}:{member}|s")
        self.lines += len(lines)
        return "\n".join(lines).encode() + b"\n"


class Rig:
    """A collector, a proxy, a server, and the truth."""

    def __init__(self, directory: Path, server: Server, *, spool: str, seed: int) -> None:
        self.directory = directory
        self.server = server
        self.random = random.Random(seed)
        self.proxy = Proxy(directory / "proxy.sock", server.socket, seed)
        self.truth = Truth()
        self.kills = 0  # of the collector
        self.started = time.time()
        self._blocks = itertools.count()
        self._markers = itertools.count()
        self._config = CONFIG.format(state_dir="{state_dir}", socket=directory / "proxy.sock", spool=spool)
        self._received = 0  # lines that this daemon has been sent
        self._lost: Counter[str] = Counter()  # what daemons that have ended had counted
        self.daemon = self._start()

    def _start(self) -> DaemonProcess:
        config = self._config.format(state_dir=self.directory / "state")
        daemon = DaemonProcess(self.directory, config)
        seen = len(daemon.log)
        wait_for(
            lambda: "collector.ready" in daemon.log[seen:] or daemon.process.poll(), "the daemon to listen"
        )
        self._received = 0
        self._stream: socket.socket | None = None
        return daemon

    def send(self, blocks: int) -> None:
        """Sends blocks of lines; TCP holds us back when the daemon is busy."""
        for _ in range(blocks):
            before = self.truth.lines
            self._put(self.truth.block(self.random, next(self._blocks)))
            self._received += self.truth.lines - before

    def _put(self, data: bytes) -> None:
        if self._stream is None:
            self._stream = socket.create_connection(("127.0.0.1", self.daemon.port("tcp")), timeout=30)
        self._stream.sendall(data)

    def metric(self, pattern: str) -> float:
        """A self-metric, or the sum of those that match."""
        page = self.daemon.get_text("/metrics")
        found = re.findall(rf"^{pattern}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))

    def flushed(self) -> None:
        """Waits until all that was sent has been received, and the flush of its window reported."""
        wait_for(lambda: self.metric("collector_lines_total") >= self._received, "all lines", PATIENCE)
        while True:  # a line that was sent and received within one second lies in a window that is known
            start = time.time()
            marker = f"chaos.marker{next(self._markers) % 100:03d}"
            self._put(f"{marker}:1|c\n".encode())
            self.truth.counters[marker] += 1
            self._received += 1
            wait_for(lambda: self.metric("collector_lines_total") >= self._received, "the marker", PATIENCE)
            if int(time.time()) == int(start):
                break
        end = int(start) + 1
        name = "collector_last_flush_timestamp_seconds"
        wait_for(lambda: self.metric(name) >= end, "the flush", PATIENCE)

    def kill_collector(self) -> None:
        """kill -9 of the collector, and a start."""
        self._note_lost()
        self.daemon.process.kill()
        self.daemon.stop()
        self.kills += 1
        if self._stream is not None:
            self._stream.close()
        self.daemon = self._start()

    def _note_lost(self) -> None:
        found = re.findall(
            r'^collector_lost_total\{reason="(\w+)"\} (\d+)', self.daemon.get_text("/metrics"), re.M
        )
        self._lost.update({reason: int(count) for reason, count in found if int(count)})

    def settle(self) -> None:
        """Ends the faults and waits until everything is confirmed."""
        self.proxy.chance = 0.0
        self.proxy.plan.clear()
        self.flushed()
        wait_for(lambda: self.metric("collector_backlog_batches") == 0, "the backlog to be sent", PATIENCE)
        self._note_lost()

    def close(self) -> None:
        """Stops the daemon."""
        if self._stream is not None:
            self._stream.close()
        self.daemon.stop(signal.SIGTERM)

    # ------------------------------------------------------------------ the comparison

    def differences(self) -> list[str]:
        """Every series of the store that is not what was sent, and what a daemon had counted as lost."""
        found = [f"counted as lost: {reason} {count}" for reason, count in self._lost.items()]
        return found + asyncio.run(self._differences())

    async def _differences(self) -> list[str]:
        client = connect(f"unix://{self.server.socket}")
        reader = Reader(client, KeySpace("m", 1), idle_expiry=86400, refresh=60)
        start, end, truth = self.started - 120, time.time() + 120, self.truth

        def series(kind: Kind, names: list[str]) -> list[Series]:
            return [Series(kind, name) for name in names]

        stored: dict[str, float] = {}
        sent: dict[str, float] = {**truth.counters, **truth.gauges, **truth.timers}
        totals = await reader.totals(series(Kind.COUNTER, list(truth.counters)))
        stored |= dict(zip(truth.counters, totals, strict=True))
        for name in truth.gauges:
            (value,) = await reader.gauges(series(Kind.GAUGE, [name]), time.time())
            stored[name] = value[1] if value else 0.0
        for name in truth.timers:
            (slots,) = await reader.sketches(series(Kind.TIMER, [name]), start, end)
            stored[name] = sum(sketch.count for _, sketch in slots)
        for name, members in truth.sets.items():
            # A HyperLogLog is a function of its members: one of the same members counts the same.
            await client.delete("truth")
            await client.pfadd("truth", *members)
            sent[name] = await client.pfcount("truth")
            stored[name] = await reader.unique(series(Kind.SET, [name]), int(start), int(end))
        await client.aclose()
        return [
            f"{name}: sent {sent[name]:g}, stored {stored[name]:g}, difference {stored[name] - sent[name]:+g}"
            for name in sent
            if sent[name] != stored[name]
        ]


@contextmanager
def rig(directory: Path, *options: str, spool: str, seed: int, program: Path | None = None) -> Iterator[Rig]:
    """All three, running."""
    server = Server(directory / "server", *options, program=program)
    server.start()
    try:
        made = Rig(directory, server, spool=spool, seed=seed)
        try:
            with made.proxy.running():
                yield made
                made.close()
        finally:
            made.daemon.process.kill()
            made.daemon.process.wait()
    finally:
        server.stop()


AOF: Final = ("--appendonly", "yes", "--appendfsync", "everysec")
NOTHING_SAVED: Final = ("--appendonly", "no")


def server_killed(
    one: Rig,
    *,
    kills: int,
    blocks: int,
    pause: float,
    faults: int,
    tell: Callable[[str], None],
    saves: bool = False,
) -> None:
    """Load while connections break, so many before each time that the server is killed, half of these in the
    middle of a request.

    With `saves` the server has no log: it comes back with the copy of its data that it made a moment before.
    """
    one.proxy.chance = 0.3 if saves else 0.08
    one.proxy.kinds = CUTS
    for kill in range(kills):
        for _ in range(blocks):
            one.send(1)
            time.sleep(pause / blocks)
        spoilt = faults * (kill + 1)
        wait_for(lambda: one.proxy.faults.total() >= spoilt, "more broken connections", PATIENCE)  # noqa: B023
        if saves:
            with one.server.client() as client:
                client.save()
            time.sleep(one.random.uniform(0.2, 1.5))
        if kill % 2:
            one.proxy.plan.extend(["pass", one.server.kill])
            one.server.wait_killed(kill + 1)
        else:
            one.server.kill()
        time.sleep(one.random.uniform(0, 0.3))
        one.server.restart()
        tell(progress(one))


def collector_killed(one: Rig, *, kills: int, blocks: int, tell: Callable[[str], None]) -> None:
    """Load while connections break, and the collector is killed as soon as a flush is reported.

    At some of the kills the store has been away for a while, or has taken batches and not been heard.
    """
    one.proxy.kinds = CUTS
    for kill in range(kills):
        one.proxy.chance = 0.06
        one.send(blocks)
        match kill % 4:
            case 1:
                one.server.kill()
            case 2:
                one.proxy.chance = 0.3
            case 3:
                one.proxy.plan.extend(["pass"] * one.random.randrange(12) + ["swallow"])
        one.flushed()
        one.kill_collector()
        if kill % 4 == 1:
            one.send(1)
            one.flushed()
            one.server.restart()
        tell(progress(one))


def progress(one: Rig) -> str:
    """How far it is, in one line."""
    faults = sum(one.proxy.faults.values())
    killed = f"server killed {one.server.kills} times, collector {one.kills}"
    return f"{one.truth.lines:,} lines, {faults} faults, {killed}"
