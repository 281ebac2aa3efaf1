"""Listeners: real sockets in front of each engine, under both event loops."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from engines import make_engine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import (
    NOW,
    Rig,
    both_loops,
    closed_by_peer,
    connect,
    descriptors,
    eventually,
    has_ipv6,
    ipv6_only,
    linux_only,
    listening,
    run,
    send_tcp,
    send_udp,
)

from collector.addresses import Address
from collector.engine import Limits
from collector.errors import OperatorError
from collector.listeners import ListenerSettings, create
from collector.listeners.base import profile_of
from collector.model import GaugeMode, GaugePoint
from collector.statsd.names import Dialect, Naming

pytestmark = pytest.mark.usefixtures("each_engine")


# ------------------------------------------------------------------ what arrives is counted


UDP_CASES: dict[str, tuple[list[bytes], dict[str, float], int]] = {
    "one line": ([b"a:1|c"], {"a": 1}, 1),
    "a trailing newline is no line": ([b"a:1|c\n"], {"a": 1}, 1),
    "CR LF": ([b"a:1|c\r\nb:2|c\r\n"], {"a": 1, "b": 2}, 2),
    "blank lines are not counted": ([b"\n\na:1|c\n\n"], {"a": 1}, 1),
    "a bad line spoils no neighbour": ([b"a:1|c\nX\nb:1|c"], {"a": 1, "b": 1}, 3),
    "datagrams are not joined": ([b"a:1", b"|c\n"], {}, 2),
    "an empty datagram": ([b"", b"a:1|c"], {"a": 1}, 1),
    "one of 1400 bytes is whole": ([b"a" * 200 + b":1|c|#k:" + b"v" * 1192], {"a" * 200: 1}, 1),
    "one of 65,507 bytes is whole": ([b"a:1|c\n" * 10917 + b"b:1|c"], {"a": 10917, "b": 1}, 10918),
    "a burst, then one": ([b"a:1|c"] * 100 + [b"b:1|c"], {"a": 100, "b": 1}, 101),
}


@both_loops
@pytest.mark.parametrize("case", list(UDP_CASES))
def test_udp_counts_each_line_of_each_datagram_once(loop: str, case: str) -> None:
    """A datagram is whole lines, whatever its size; none is lost, cut, joined or counted twice."""
    packets, expected, lines = UDP_CASES[case]

    async def main() -> None:
        async with listening("udp://127.0.0.1:0") as rig:
            send_udp(rig.port(), *packets)
            await rig.lines(lines)
            await eventually(lambda: rig.listener.packets == len(packets), "all packets")
            assert rig.listener.bytes == sum(map(len, packets))
            assert rig.totals() == expected

    run(loop, main())


TCP_CASES: dict[str, tuple[list[bytes], dict[str, float], int]] = {
    "one line": ([b"a:1|c\n"], {"a": 1}, 1),
    "a last line without newline": ([b"a:1|c"], {"a": 1}, 1),
    "a line over two reads": ([b"fo", b"o:1|c\n"], {"foo": 1}, 1),
    "a line over many reads": ([b"f", b"o", b"o", b":", b"1", b"|", b"c"], {"foo": 1}, 1),
    "CR and LF apart": ([b"a:1|c\r", b"\nb:1|c\r\n"], {"a": 1, "b": 1}, 2),
    "newlines alone": ([b"\n", b"\n\n"], {}, 0),
    "nothing at all": ([], {}, 0),
    "several lines, the last one open": ([b"a:1|c\nb:2|c\nc:3", b"|c"], {"a": 1, "b": 2, "c": 3}, 3),
    "one of 1400 bytes is whole": ([b"a" * 200 + b":1|c|#k:" + b"v" * 1192], {"a" * 200: 1}, 1),
}


@both_loops
@pytest.mark.parametrize("case", list(TCP_CASES))
def test_tcp_joins_reads_into_lines(loop: str, case: str) -> None:
    """A line may arrive in pieces, and the last one needs no newline when the client closes."""
    parts, expected, lines = TCP_CASES[case]

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            await send_tcp(rig.port(), *parts, pause=0.02)
            await rig.ended(1)
            assert rig.listener.lines == lines
            assert rig.totals() == expected

    run(loop, main())


@both_loops
def test_tcp_takes_a_last_line_when_the_client_only_stops_sending(loop: str) -> None:
    """A half-closed connection is at its end: its last line counts, and we close our half without a word."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            with await connect(rig.port()) as sock:
                sock.send(b"a:1|c\na:2|c")
                sock.shutdown(socket.SHUT_WR)
                assert await closed_by_peer(sock)
            await rig.lines(2)
            assert rig.totals() == {"a": 3}

    run(loop, main())


STREAM = b"a:1|c\nbb:22|c\r\n\nX\nccc:3|c|#k:\xc3\xa9\na:5|c\n" + b"l" * 300 + b":1|c\nb\nd:7|c"
_WHOLE = {"a": 6.0, "bb": 22.0, "ccc": 3.0, "d": 7.0}


@both_loops
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=8).map(sorted))
def test_tcp_splits_do_not_matter(loop: str, cuts: list[int]) -> None:
    """However a stream is cut into segments, totals, lines and refusals are the same."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", Limits(line=100)) as rig:
            edges = [0, *cuts, len(STREAM)]
            parts = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
            await send_tcp(rig.port(), *parts, pause=0.001)
            await rig.ended(1)
            assert rig.totals() == _WHOLE
            assert dict(rig.engine.rejected) == {"no_value": 2, "too_long": 1}

    run(loop, main())


# ------------------------------------------------------------------ addresses


@both_loops
@ipv6_only
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_localhost_is_both_families_on_one_port(loop: str, scheme: str) -> None:
    """Clients disagree on what `localhost` means: both 127.0.0.1 and ::1 arrive, also with a free port."""

    async def main() -> None:
        async with listening(f"{scheme}://localhost:0") as rig:
            assert rig.port("127.0.0.1") == rig.port("::1") > 0
            for host in ("127.0.0.1", "::1"):
                if scheme == "udp":
                    send_udp(rig.port(host), b"a:1|c", host=host)
                else:
                    await send_tcp(rig.port(host), b"a:1|c\n", host=host)
            await rig.lines(2)
            assert rig.totals() == {"a": 2}

    run(loop, main())


@ipv6_only
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_both_wildcards_can_be_bound(scheme: str) -> None:
    """0.0.0.0 and [::] are two addresses, also on one port."""

    async def main() -> None:
        async with listening(f"{scheme}://0.0.0.0:0") as four:
            port = four.port("0.0.0.0")
            async with listening(f"{scheme}://[::]:{port}") as six:
                assert six.listener.addresses == [f"{scheme}://[::]:{port}"]

    run("uvloop", main())


def test_several_listeners_feed_one_engine_with_profiles_of_their_own() -> None:
    """Two listeners of one kind read the same line each by its own settings, and count for themselves."""

    async def main() -> None:
        limits = Limits()
        engine = make_engine(NOW, limits=limits)
        both = [
            create(
                ListenerSettings(url=Address.parse("udp://127.0.0.1:0"), gauges=mode),
                engine,
                limits,
                lambda: NOW,
            )
            for mode in (GaugeMode.STATSD, GaugeMode.DOGSTATSD)
        ]
        try:
            for name, listener in zip((b"moved", b"set"), both, strict=True):
                await listener.open()
                send_udp(Rig(listener, engine).port(), name + b":-3|g")
                await Rig(listener, engine).lines(1)
        finally:
            for listener in both:
                await listener.close()
        points = [point for one in engine.close(NOW) for _, some in one.chunks(9) for point in some]
        gauges = {p.series.name: (p.value, p.move) for p in points if isinstance(p, GaugePoint)}
        assert gauges == {"moved": (None, -3), "set": (-3, 0)}

    run("uvloop", main())


def test_a_profile_carries_every_setting_and_limit() -> None:
    """What is set for a listener, and the limits of a name and a line, reach the grammar."""
    told = ListenerSettings(
        url=Address.parse("udp://localhost"),
        gauges=GaugeMode.DOGSTATSD,
        dialects=frozenset(Dialect),
        names=Naming.KEEP,
        prefix="web.",
        tags={"env": "prod"},
        meters=True,
        bare_names=True,
        keep_container=True,
        min_sample_rate=0.5,
    )
    profile = profile_of(told, Limits(name=7, line=70))
    assert (profile.naming, profile.tags) == (Naming.KEEP, ("env:prod",))
    for name in ("gauges", "dialects", "prefix", "meters", "bare_names", "keep_container"):
        assert getattr(profile, name) == getattr(told, name)
    assert (profile.min_sample_rate, profile.longest_name, profile.longest_line) == (0.5, 7, 70)


@both_loops
@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_an_address_in_use_is_refused_by_name(loop: str, scheme: str) -> None:
    """Two daemons never share a port in silence: the second one is told which URL, and what to do."""

    async def main() -> None:
        async with listening(f"{scheme}://127.0.0.1:0") as first:
            url = f"{scheme}://127.0.0.1:{first.port()}"
            with pytest.raises(OperatorError, match="another process listens there") as caught:
                async with listening(url):
                    raise AssertionError("bound twice")
            assert url in caught.value.problem
            # The one that was first goes on undisturbed.
            if scheme == "udp":
                send_udp(first.port(), b"a:1|c")
            else:
                await send_tcp(first.port(), b"a:1|c")
            await first.lines(1)

    run(loop, main())


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_refused_half_of_localhost_leaves_no_socket_behind(scheme: str) -> None:
    """When ::1 is taken, 127.0.0.1 is given back with the error."""
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")

    async def main() -> None:
        with socket.socket(socket.AF_INET6, kind) as taken:
            taken.bind(("::1", 0))
            if scheme == "tcp":
                taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(OperatorError, match=re.escape(f"localhost:{port}")):
                async with listening(f"{scheme}://localhost:{port}"):
                    raise AssertionError("bound twice")
            with socket.socket(socket.AF_INET, kind) as free:
                free.bind(("127.0.0.1", port))

    run("uvloop", main())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("udp://no-such-host.invalid:1", "unknown host"),
        ("tcp://no-such-host.invalid:1", "unknown host"),
        ("udp://192.0.2.1:0", "this machine has no such address"),
        ("tcp://192.0.2.1:0", "this machine has no such address"),
    ],
)
def test_an_address_that_cannot_be_had_is_the_operators_error(url: str, said: str) -> None:
    """A host that is unknown, or not ours, ends in an error that names the URL and the remedy."""

    async def main() -> None:
        with pytest.raises(OperatorError) as caught:
            async with listening(url):
                raise AssertionError("bound")
        assert url in caught.value.problem
        assert said in caught.value.remedy

    run("uvloop", main())


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_stopped_listener_can_be_opened_again_at_once(scheme: str) -> None:
    """A restart binds the same port, also while connections of the old one linger."""

    async def main() -> None:
        async with listening(f"{scheme}://127.0.0.1:0") as first:
            port = first.port()
            client = await connect(port) if scheme == "tcp" else None
            if client is not None:
                client.send(b"a:1|c\n")
                await first.lines(1)
            await first.listener.drain()
        async with listening(f"{scheme}://127.0.0.1:{port}") as second:
            assert second.port() == port
        if client is not None:
            client.close()

    run("uvloop", main())


# ------------------------------------------------------------------ kernel buffers


def threads() -> set[int]:
    """Those of this process."""
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


@contextmanager
def starved(some: Iterable[int]) -> Iterator[None]:
    """Lets threads have only what this one leaves of a core; a fast machine's would keep up with it."""
    cores = os.sched_getaffinity(0)
    for thread in (0, *some):
        os.sched_setaffinity(thread, {min(cores)})
    for thread in some:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@linux_only
@both_loops
def test_what_the_kernel_drops_is_counted(loop: str) -> None:
    """A burst into a full buffer is lost, but not in silence: received and dropped make up what was sent."""
    sent = 3000

    async def main() -> None:
        before = threads()
        async with listening("udp://127.0.0.1:0", receive_buffer=0) as rig:
            with starved(threads() - before):
                send_udp(rig.port(), *[b"a:1|c|#pad:" + b"x" * 1400] * sent)  # while the loop is not running
            await eventually(lambda: rig.listener.packets > 0, "packets")
            await asyncio.sleep(0.1)
            dropped = rig.listener.kernel_drops
            assert dropped > 0
            assert rig.listener.lines + dropped == sent
            assert rig.listener.status()["kernel_drops"] == dropped
        assert rig.listener.kernel_drops == dropped  # known beyond the socket's life

    run(loop, main())


@linux_only
def test_the_receive_buffer_is_asked_for_and_shown() -> None:
    """The status tells what was asked for and what was granted; a small wish never shrinks the default."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        default = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    async def main() -> None:
        for wish in (0, default * 2):
            async with listening("udp://127.0.0.1:0", receive_buffer=wish) as rig:
                shown = rig.listener.status()["receive_buffer"]
                assert shown["requested"] == wish
                assert len(shown["granted"]) == 1
                assert shown["granted"][0] >= default

    run("uvloop", main())


@linux_only
def test_a_buffer_much_smaller_than_asked_for_names_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    """One warning for a listener, with the sysctl that mends it, when the kernel grants much less."""
    size = 2**31 - 1  # the kernel reports an even number, so nobody gets this in full

    async def main() -> None:
        async with listening("udp://localhost:0", receive_buffer=size) as rig:
            granted = rig.listener.status()["receive_buffer"]["granted"]
            warned = [r.message for r in caplog.records if "listener.small_buffer" in r.message]
            assert min(granted) < size
            assert len(warned) == 1
            assert "net.core.rmem_max" in warned[0]

    run("uvloop", main())


@linux_only
@both_loops
@pytest.mark.parametrize("held", ["loop", "interpreter"])
def test_a_thread_loses_nothing_while_python_is_held_up(loop: str, held: str, each_engine: str) -> None:
    """300 ms in which the event loop, or all of Python, does something else: 9,000 datagrams, none lost."""
    if each_engine != "native":
        pytest.skip("the engine in Python receives in the event loop")
    code = (
        "import socket, sys, time\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "sock.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "data = b'a:1|c\\n' * 238\n"  # 1428 bytes
        "sys.stdin.readline(); last = 0\n"
        "for n in range(300):\n"
        "    while time.monotonic() - last < 0.001: pass\n"  # what is late is not caught up with
        "    last = time.monotonic()\n"
        "    for _ in range(30): sock.send(data)\n"
        "print('sent', flush=True)\n"
    )

    def start(port: int) -> subprocess.Popen[bytes]:
        program = [sys.executable, "-c", code, str(port)]
        return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def main() -> None:
        async with listening("udp://127.0.0.1:0") as rig:
            send_udp(rig.port(), b"a:1|c")
            await rig.lines(1)
            with start(rig.port()) as sender:
                assert sender.stdin
                assert sender.stdout
                sender.stdin.write(b"\n")
                sender.stdin.flush()
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    if held == "loop":
                        time.sleep(0.01)  # noqa: ASYNC251  # to hold the loop is what is tried here
                    else:
                        pow(7, 100_000)  # one call of some milliseconds that nothing can interrupt
                assert await asyncio.to_thread(sender.stdout.readline) == b"sent\n"
            await rig.lines(9000 * 238 + 1)
            assert rig.listener.kernel_drops == 0
            assert rig.totals() == {"a": 9000 * 238 + 1}

    run(loop, main())


# ------------------------------------------------------------------ limits of connections


@both_loops
def test_connections_over_the_limit_are_closed_and_counted(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit holds, those within it are not disturbed, and many refusals make one log line."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", max_connections=2) as rig:
            kept = [await connect(rig.port()) for _ in range(2)]
            await eventually(lambda: rig.listener.status()["connections"] == 2, "two connections")
            for _ in range(5):
                with await connect(rig.port()) as sock:
                    with suppress(ConnectionError):
                        sock.send(b"no:1|c\n")
                    assert await closed_by_peer(sock)
            for sock in kept:
                sock.send(b"a:1|c\n")
                sock.close()
            await rig.lines(2)
            await eventually(lambda: rig.listener.status()["connections"] == 0, "their end")
            status = rig.listener.status()
            assert (status["connections_total"], status["refused_connections"]) == (7, {"full": 5})
            # There is room again.
            await send_tcp(rig.port(), b"a:1|c\n")
            await rig.lines(3)
            assert rig.totals() == {"a": 3}

    run(loop, main())
    assert sum("listener.connection_refused" in record.message for record in caplog.records) == 1


@both_loops
def test_a_silent_connection_is_closed_after_the_idle_timeout(loop: str) -> None:
    """Who sends stays, who is silent goes; what it had sent without a newline still counts."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", idle_timeout=0.6) as rig:
            with await connect(rig.port()) as busy, await connect(rig.port()) as silent:
                silent.send(b"silent:1|c")
                gone = asyncio.ensure_future(closed_by_peer(silent))
                while not gone.done():
                    busy.send(b"busy:1|c\n")
                    await asyncio.sleep(0.05)
                assert gone.result()
                status = rig.listener.status()
                assert (status["connections"], status["closed_connections"]) == (1, {"idle": 1})
            await eventually(lambda: rig.listener.status()["connections"] == 0, "the end")
            assert rig.totals()["silent"] == 1

    run(loop, main())


# ------------------------------------------------------------------ the stop


@both_loops
@pytest.mark.parametrize("url", ["udp://localhost:0", "udp://127.0.0.1:0"])
def test_a_stop_loses_no_datagram_that_the_kernel_has_taken(loop: str, url: str) -> None:
    """All that was queued when the stop began is counted, on each socket, and nothing is dropped."""
    sent = 2000

    async def main() -> None:
        async with listening(url, receive_buffer=8 * 2**20) as rig:
            hosts = ["127.0.0.1", "::1"] if len(rig.listener.addresses) == 2 else ["127.0.0.1"]
            for host in hosts:  # while the loop is not running
                send_udp(rig.port(host), *[b"a:1|c\nb:1|c"] * sent, host=host)
            await rig.listener.drain()
            dropped = rig.listener.kernel_drops
            assert rig.totals() == dict.fromkeys("ab", sent * len(hosts) - dropped)
            assert dropped == 0 or min(rig.listener.status()["receive_buffer"]["granted"]) < 4 * 2**20
            send_udp(rig.port(), b"late:1|c")
            await asyncio.sleep(0.05)
            assert rig.totals() == {}

    run(loop, main())


@both_loops
def test_a_stop_takes_what_open_connections_have_sent(loop: str) -> None:
    """Whole lines and a last open one, of a connection that is known, count; then it is closed."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            clients = [await connect(rig.port()) for _ in range(20)]
            await eventually(lambda: rig.listener.status()["connections"] == 20, "connections")
            for sock in clients:
                assert sock.send(b"a:1|c\n" * 5000 + b"b:1|c") == 30005
            await rig.listener.drain()
            assert rig.totals() == {"a": 100_000, "b": 20}
            for sock in clients:
                assert await closed_by_peer(sock)
                sock.close()
            assert rig.listener.status()["connections"] == 0

    run(loop, main())


@both_loops
def test_a_stop_takes_connections_that_wait_to_be_accepted(loop: str) -> None:
    """A client that has connected and sent before the stop has been promised a hearing by the kernel."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            clients = [socket.create_connection(("127.0.0.1", rig.port())) for _ in range(50)]
            for sock in clients:  # the loop has not run since
                sock.sendall(b"a:1|c\nb:1|c")
            for sock in clients[25:]:
                sock.close()
            await rig.listener.drain()
            assert rig.totals() == {"a": 50, "b": 50}
            for sock in clients[:25]:
                sock.close()

    run(loop, main())


@both_loops
def test_a_stop_is_not_held_up_by_a_client_that_goes_on(loop: str) -> None:
    """A flood, or a client that is silent, delays the stop by a bounded time."""

    async def flood(port: int, stop: asyncio.Event) -> None:
        with await connect(port) as sock, suppress(ConnectionError):
            while not stop.is_set():
                await asyncio.get_running_loop().sock_sendall(sock, b"a:1|c\n" * 1000)

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0") as rig:
            stop = asyncio.Event()
            client = asyncio.ensure_future(flood(rig.port(), stop))
            with await connect(rig.port()):
                await eventually(lambda: rig.listener.lines > 0, "lines")
                await asyncio.wait_for(rig.listener.drain(), 10)
            stop.set()
            await client

    run(loop, main())


@both_loops
@pytest.mark.parametrize("url", ["udp://localhost:0", "tcp://localhost:0"])
def test_a_listener_gives_all_descriptors_back(loop: str, url: str) -> None:
    """Opening, stopping and closing, also twice or without a stop, leaks nothing."""

    async def main() -> None:
        before = -1
        for stop in (False, True, False):
            async with listening(url) as rig:
                if url.startswith("tcp"):
                    await send_tcp(rig.port(), b"a:1|c")
                if stop:
                    await rig.listener.drain()
                await rig.listener.close()
            if before < 0:
                await asyncio.sleep(0.05)
                before = descriptors()  # with what the loop itself has opened on the way
        await eventually(lambda: descriptors() == before, "descriptors")

    run(loop, main())
