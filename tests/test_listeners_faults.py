"""Faults that other collectors have had at their sockets, and what must happen here instead."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import socket

import pytest
from harness import RESET
from rig import (
    both_loops,
    connect,
    descriptors,
    eventually,
    linux_only,
    listening,
    run,
    send_tcp,
    send_udp,
)

from collector.engine import Limits

pytestmark = pytest.mark.usefixtures("each_engine")


@both_loops
def test_two_thousand_connections_leave_no_descriptor(loop: str) -> None:
    """Connections that were opened and closed are gone: descriptors and the count are back to the base."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            await send_tcp(rig.port(), b"a:1|c\n")
            await eventually(lambda: rig.listener.status()["connections"] == 0, "the first to go")
            before = descriptors()
            for _ in range(20):
                await asyncio.gather(*(send_tcp(rig.port(), b"a:1|c\n") for _ in range(100)))
            await rig.lines(2001)
            await eventually(lambda: rig.listener.status()["connections"] == 0, "all to go")
            await eventually(lambda: descriptors() == before, "descriptors")
            assert rig.totals() == {"a": 2001}

    run(loop, main())


@both_loops
def test_a_line_without_end_is_refused_once_and_costs_no_memory(loop: str) -> None:
    """32 MB without a newline: one `too_long`, bounded memory, and the next line is read."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", Limits(line=1000)) as rig:
            block = b"x" * 2**20
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await send_tcp(rig.port(), b"good:1|c\n", *[block] * 32, b"\nlast:1|c")
            await rig.lines(3)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 8 * 1024  # KiB
            assert dict(rig.engine.rejected) == {"too_long": 1}
            (refused,) = rig.engine.refused
            assert refused.sender.startswith("127.0.0.1:")
            assert set(refused.line) == {"x"}
            assert rig.totals() == {"good": 1, "last": 1}

    run(loop, main())


@both_loops
def test_a_line_too_long_is_refused_once_however_it_arrives(loop: str) -> None:
    """Whole in one read, or in two, with or without its end: the same count and the same neighbours."""
    line = b"x" * 150
    arrivals = {
        "whole": [b"a:1|c\n" + line + b"\nb:1|c\n"],
        "in two reads": [b"a:1|c\n" + line[:80], line[80:] + b"\nb:1|c\n"],
        "found out without its end": [b"a:1|c\n" + line, b"\nb:1|c\n"],
        "found out in the second read": [b"a:1|c\n" + line[:80], line[80:], b"\nb:1|c\n"],
    }

    async def main() -> None:
        for name, parts in arrivals.items():
            async with listening("tcp://127.0.0.1:0", Limits(line=100)) as rig:
                await send_tcp(rig.port(), *parts, pause=0.03)
                await rig.ended(1)
                assert rig.totals() == {"a": 1, "b": 1}, name
                assert dict(rig.engine.rejected) == {"too_long": 1}, name
                assert set(rig.engine.refused[0].line) == {"x"}, name

    run(loop, main())


@both_loops
def test_two_hundred_clients_that_close_at_random_are_counted_exactly(loop: str) -> None:
    """Clients that come and go at the same time, cutting lines anywhere, never mix or lose lines."""
    chance = random.Random(1)

    async def client(port: int, lines: int) -> None:
        data = b"".join(b"k%d:%d|c\n" % (n % 7, n) for n in range(lines)).rstrip(b"\n")
        cuts = sorted(chance.randrange(len(data) + 1) for _ in range(3))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        await send_tcp(port, *parts, pause=chance.random() / 50)

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            counts = [chance.randrange(1, 300) for _ in range(200)]
            await asyncio.gather(*(client(rig.port(), lines) for lines in counts))
            await rig.lines(sum(counts))
            expected = dict.fromkeys((f"k{n}" for n in range(7)), 0)
            for lines in counts:
                for n in range(lines):
                    expected[f"k{n % 7}"] += n
            assert rig.totals() == expected

    run(loop, main())


@both_loops
def test_peers_that_reset_or_probe_log_nothing(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """A good line, a probe that sends nothing and a reset are everyday: no warning, no line lost."""
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            caplog.clear()
            await send_tcp(rig.port(), b"a:1|c\n")
            await send_tcp(rig.port())
            for at_once in (False, True):
                with await connect(rig.port()) as sock:
                    sock.send(b"a:1|c\n")
                    if not at_once:
                        await eventually(lambda: rig.listener.lines == 2, "the line")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await rig.lines(3)
            await eventually(lambda: rig.listener.status()["connections"] == 0, "the end")
            assert rig.totals() == {"a": 3}

    run(loop, main())
    assert [r.message for r in caplog.records if r.levelno > logging.INFO] == []


@both_loops
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_port_probes_are_counted_and_log_nothing(
    loop: str, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`nc -v` sends an "X" to see who is there: refused lines with their sender, none in the log."""

    async def main() -> None:
        async with listening(f"{scheme}://127.0.0.1:0") as rig:
            for _ in range(5):
                if scheme == "udp":
                    send_udp(rig.port(), b"X")
                else:
                    await send_tcp(rig.port(), b"X")
            await rig.lines(5)
            assert dict(rig.engine.rejected) == {"no_value": 5}
            assert all(line.sender.startswith("127.0.0.1:") for line in rig.engine.refused)

    run(loop, main())
    assert not [r for r in caplog.records if r.levelno > logging.INFO]


@both_loops
def test_source_ports_do_not_split_a_counter(loop: str) -> None:
    """Two processes of one host, each with a port of its own, add to one series."""

    async def main() -> None:
        async with listening("udp://127.0.0.1:0") as rig:
            send_udp(rig.port(), b"m:20|c")
            send_udp(rig.port(), b"m:10|c")
            await rig.lines(2)
            assert rig.totals() == {"m": 30}

    run(loop, main())


@both_loops
def test_a_burst_then_one_packet_is_counted_once(loop: str) -> None:
    """A receive loop that has seen many datagrams does not see them again with the next one."""

    async def main() -> None:
        async with listening("udp://127.0.0.1:0") as rig:
            send_udp(rig.port(), *[b"burst:1|c"] * 200)
            await rig.lines(200)
            send_udp(rig.port(), b"one:1|c")
            await rig.lines(201)
            assert rig.totals() == {"burst": 200, "one": 1}

    run(loop, main())


@both_loops
def test_non_ascii_bytes_survive_a_stream(loop: str) -> None:
    """A set's member is bytes, over TCP too, also when a read cuts through a character."""
    member = "é世".encode()

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            await send_tcp(rig.port(), b"u:" + member[:1], member[1:3], member[3:] + b"|s\n", pause=0.03)
            await rig.lines(1)
            (points,) = [some for one in rig.engine.close(1e9) for _, some in one.chunks(9)]
            assert [getattr(point, "members", None) for point in points] == [[member]]

    run(loop, main())


@both_loops
def test_an_event_with_newlines_is_whole_over_tcp(loop: str) -> None:
    """An event says how long it is, so a raw newline inside it is no end, wherever a read cuts."""
    event = b"_e{5,11}:title|first\nlast!|#a:b"

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            await send_tcp(rig.port(), b"a:1|c\n" + event[:22], event[22:] + b"\nb:1|c\n", pause=0.03)
            await rig.ended(1)
            (interval,) = rig.engine.close(1e9)
            assert [found.text for found in interval.events] == ["first\nlast!"]
            assert not rig.engine.rejected

    run(loop, main())


@linux_only
def test_an_error_queued_by_the_network_does_not_end_the_reader() -> None:
    """An ICMP error that recvfrom reports is not ours: later datagrams are read.

    Not under uvloop: libuv ends the poll of a socket with a queued error. The kernel queues none for a socket
    that never sends and is not connected, as ours are.
    """

    async def main() -> None:
        async with listening("udp://127.0.0.1:0") as rig:
            # To have one, the listener's own socket must send to where nobody listens.
            (sock,) = [one.sock for one in rig.listener._sockets]  # type: ignore[attr-defined]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind(("127.0.0.1", 0))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
                    nobody.bind(("127.0.0.1", 0))
                    sock.connect(nobody.getsockname())
                sock.send(b"x")
                await asyncio.sleep(0.05)
                sock.connect(client.getsockname())
                client.sendto(b"a:1|c", ("127.0.0.1", rig.port()))
            await rig.lines(1)

    run("asyncio", main())


@both_loops
def test_out_of_descriptors_is_said_once_and_is_no_end(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a free descriptor nobody can be accepted; when there is one again, those who wait are heard."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            client = await connect(rig.port())
            client.send(b"a:1|c\n")
            await rig.lines(1)
            waiting = socket.socket()
            waiting.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            held = [os.dup(0) for _ in range(descriptors())]  # fills the gaps below the limit
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
                await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", rig.port()))
                waiting.send(b"b:1|c\n")
                await asyncio.sleep(0.3)
                client.send(b"a:1|c\n")  # those who are in go on
                await rig.lines(2)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in held:
                    os.close(fd)
            await rig.lines(3)
            client.close()
            waiting.close()
            assert rig.totals() == {"a": 2, "b": 1}

    run(loop, main())
    assert 1 <= sum("listener.accept_failed" in r.message for r in caplog.records) <= 2
