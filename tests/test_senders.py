"""Who is heard, how much of each sender is taken, and how a sender's lines are tagged."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from engines import make_engine
from rig import NOW, both_loops, closed_by_peer, connect, eventually, linux_only, listening, run

from collector.addresses import Address, Network
from collector.engine import Limits, PureEngine
from collector.listeners import senders as senders_module
from collector.listeners.base import profile_of
from collector.listeners.senders import Budget, SenderClass, Senders
from collector.listeners.settings import PUBLIC_RATE, ListenerSettings, SenderTag
from collector.model import CounterPoint

# Every 127.x.y.z is this machine on Linux: senders of as many addresses as a test wants.
pytestmark = [linux_only, pytest.mark.usefixtures("each_engine")]

both_transports = pytest.mark.parametrize("scheme", ["udp", "tcp"])


def networks(*texts: str) -> tuple[Network, ...]:
    """Networks as settings hold them."""
    return tuple(Network.parse(text) for text in texts)


def senders(url: str = "udp://0.0.0.0:8125", **options: Any) -> tuple[Senders, PureEngine]:
    """The table of a listener that is not open, and its engine."""
    settings = ListenerSettings(url=Address.parse(url), **options)
    engine = make_engine(NOW)
    made = Senders(settings, engine, profile_of(settings, Limits()), lambda: NOW, lambda lines: None)
    return made, engine


def series_of(engine: PureEngine) -> dict[str, float]:
    """Counters by their canonical text."""
    points = [point for one in engine.close(NOW) for _, some in one.chunks(99) for point in some]
    return {point.series.text: float(point.value) for point in points if isinstance(point, CounterPoint)}


async def send(scheme: str, port: int, source: str, data: bytes) -> None:
    """Sends from an address of this machine."""
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind((source, 0))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        try:
            await asyncio.get_running_loop().sock_sendall(sock, data)
        except ConnectionError:
            assert scheme == "tcp"


# ------------------------------------------------------------------ who is heard


@both_loops
@both_transports
def test_only_networks_that_are_allowed_are_heard(loop: str, scheme: str) -> None:
    """What others send is dropped before it is read, and counted by where they are."""

    async def main() -> None:
        allow = networks("127.0.0.0/30", "10.0.0.0/8")
        async with listening(f"{scheme}://127.0.0.1:0", allow=allow) as rig:
            for source in ("127.0.0.2", "127.0.0.4", "127.1.0.1", "127.0.0.1"):
                await send(scheme, rig.port(), source, b"a:1|c\nb:1|c\n")
            await rig.lines(4)
            drops = rig.listener.drops
            if scheme == "udp":
                await eventually(lambda: rig.listener.packets == 4, "all datagrams")
                assert dict(drops().lines) == {("not_allowed", SenderClass.LOOPBACK): 4}
                assert dict(drops().named) == {"127.0.0.4": 2, "127.1.0.1": 2}
            else:
                status = rig.listener.status()
                assert status["refused_connections"] == {"not_allowed": 2}
            assert rig.totals() == {"a": 2, "b": 2}

    run(loop, main())


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("127.0.0.1", SenderClass.LOOPBACK),
        ("::1", SenderClass.LOOPBACK),
        ("10.1.2.3", SenderClass.PRIVATE),
        ("192.168.0.7", SenderClass.PRIVATE),
        ("fd00::1", SenderClass.PRIVATE),
        ("fe80::1%eth0", SenderClass.PRIVATE),
        ("8.8.8.8", SenderClass.PUBLIC),
        ("2600::1", SenderClass.PUBLIC),
    ],
)
def test_senders_are_classed_by_where_they_are(key: str, kind: SenderClass) -> None:
    """The label of drops has a handful of values, however many senders there are."""
    table, _ = senders()
    assert table.of(key).kind is kind


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("10.0.0.1", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("::ffff:10.0.0.1", False),  # sockets of ours are one family each: this is no IPv4 sender
    ],
)
def test_allow_lists_networks_and_single_addresses_of_both_families(key: str, allowed: bool) -> None:
    """An address is in a network of its own family or in none."""
    table, _ = senders(allow=networks("10.0.0.0/8", "192.0.2.7", "2001:db8::/32"))
    assert table.of(key).allowed is allowed


# ------------------------------------------------------------------ how much


@both_loops
@both_transports
def test_a_flood_from_one_sender_costs_the_others_nothing(loop: str, scheme: str) -> None:
    """Beyond its rate a sender's lines are dropped and counted; every line of the others counts."""

    async def main() -> None:
        async with listening(f"{scheme}://127.0.0.1:0", sender_rate=1000) as rig:

            async def flood() -> None:
                for _ in range(100):
                    await send(scheme, rig.port(), "127.0.0.66", b"flood:1|c\n" * 100)

            async def calm(source: str) -> None:
                for _ in range(20):
                    await send(scheme, rig.port(), source, b"calm:1|c\n" * 10)
                    await asyncio.sleep(0.005)

            await asyncio.gather(flood(), calm("127.0.0.2"), calm("127.0.0.3"))
            drops = rig.listener.drops
            await eventually(
                lambda: rig.listener.lines + drops().lines.total() == 10_400, "all lines", rig.listener.status
            )
            totals = rig.totals()
            assert totals["calm"] == 400
            assert 1000 <= totals["flood"] < 5000
            assert set(drops().named) == {"127.0.0.66"}
            assert rig.listener.status()["dropped"] == {"sender_rate": 10_000 - totals["flood"]}

    run(loop, main())


def test_a_sender_gets_its_rate_and_no_more() -> None:
    """Over time as many lines are taken as the rate says, with one second's worth at the start."""
    budget = Budget(credit=1000.0, at=5.0)
    taken = 0
    for tick in range(200):  # two seconds, ten times the rate
        for _ in range(10):
            budget.fill(5.0 + tick / 100, 1000)
            if budget.credit > 0:
                taken += 10
                budget.credit -= 10
    assert 2900 <= taken <= 3100
    before = budget.credit
    budget.fill(1.0, 1000)  # the clock steps back: nothing is given, and it goes on from there
    assert budget.credit == before
    budget.fill(1.5, 1000)
    assert budget.credit == pytest.approx(before + 500)


def test_addresses_of_one_ipv6_site_share_a_budget() -> None:
    """One host may have all 2^64 addresses of its network: to change the address must not help."""
    table, _ = senders(sender_rate=100)
    for host in range(50):
        key = f"2001:db8::{host:x}"
        table.ingest(b"a:1|c\n" * 10, key, (key, 1), NOW)
    assert table.drops.lines.total() >= 300
    assert table.ingest(b"a:1|c", "2001:db8:0:1::1", ("2001:db8:0:1::1", 1), NOW) == 1


def test_forged_addresses_cannot_grow_the_table_nor_push_out_who_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the bound new senders share one budget, and are counted; the known ones keep their own."""
    monkeypatch.setattr(senders_module, "MOST_SENDERS", 100)
    table, engine = senders(sender_rate=50)
    assert table.ingest(b"a:1|c", "10.0.0.1", ("10.0.0.1", 1), NOW) == 1
    for n in range(1000):
        key = f"198.18.{n // 250}.{n % 250}"
        table.ingest(b"forged:1|c", key, (key, 1), NOW)
    assert engine.limit_hits["senders"] == 901
    assert table.drops.lines["sender_rate", SenderClass.PUBLIC] >= 800
    assert len(table.drops.named) <= 100
    assert table.ingest(b"a:1|c", "10.0.0.1", ("10.0.0.1", 1), NOW) == 1


@pytest.mark.parametrize(
    ("url", "given", "rate"),
    [
        ("udp://localhost:1", None, 0),
        ("tcp://127.0.0.1:1", None, 0),
        ("unixgram:///x", None, 0),
        ("udp://0.0.0.0:1", None, PUBLIC_RATE),
        ("tcp://[::]:1", None, PUBLIC_RATE),
        ("udp://0.0.0.0:1", 0, 0),
        ("udp://localhost:1", 7, 7),
    ],
)
def test_a_public_address_has_a_limit_from_the_start(url: str, given: int | None, rate: int) -> None:
    """Where strangers can send, one of them cannot drown the others; 0 lifts it."""
    assert ListenerSettings(url=Address.parse(url), sender_rate=given).rate == rate


# ------------------------------------------------------------------ places


@both_loops
def test_one_sender_cannot_hold_all_connections(loop: str) -> None:
    """With all places taken by one, another gets the place of his longest silent connection."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", max_connections=10) as rig:
            hog = [await connect(rig.port()) for _ in range(10)]
            await eventually(lambda: rig.listener.status()["connections"] == 10, "ten connections")
            for sock in hog[1:]:
                sock.send(b"hog:1|c\n")
            await rig.lines(9)
            await send("tcp", rig.port(), "127.0.0.2", b"a:1|c\n")
            await rig.lines(10)
            assert await closed_by_peer(hog[0])
            status = rig.listener.status()
            assert status["closed_connections"] == {"crowded": 1}
            assert status["refused_connections"] == {}
            # Now the hog has nine of ten places: it may fill up, and no more.
            hog += [await connect(rig.port()) for _ in range(3)]
            await eventually(
                lambda: rig.listener.status()["refused_connections"].get("full") == 2, "two refusals"
            )
            for sock in hog:
                sock.close()
            assert rig.totals() == {"hog": 9, "a": 1}

    run(loop, main())


# ------------------------------------------------------------------ tags


@both_loops
@both_transports
def test_lines_carry_the_tags_of_their_listener_and_sender(loop: str, scheme: str) -> None:
    """Prefix, static tags and the sender's address; a line's own tag of the same key counts instead."""

    async def main() -> None:
        options: dict[str, Any] = {
            "prefix": "web.",
            "tags": {"env": "prod", "bare": ""},
            "sender_tag": SenderTag.ADDRESS,
        }
        async with listening(f"{scheme}://127.0.0.1:0", **options) as rig:
            await send(scheme, rig.port(), "127.0.0.2", b"hits:1|c\nhits:2|c|#env:test,a:1\n")
            await send(scheme, rig.port(), "127.0.0.3", b"hits:4|c\nhits:8|c|#sender:me\n")
            await send(scheme, rig.port(), "127.0.0.2", b"hits:16|c\n")
            await rig.lines(5)
            assert series_of(rig.engine) == {
                "web.hits|#bare,env:prod,sender:127.0.0.2": 17,
                "web.hits|#a:1,bare,env:test,sender:127.0.0.2": 2,
                "web.hits|#bare,env:prod,sender:127.0.0.3": 4,
                "web.hits|#bare,env:prod,sender:me": 8,
            }

    run(loop, main())


@both_transports
def test_events_and_checks_carry_them_too(scheme: str) -> None:
    """What is not a metric also has to tell where it came from."""

    async def main() -> None:
        async with listening(
            f"{scheme}://127.0.0.1:0", tags={"env": "prod"}, sender_tag=SenderTag.ADDRESS
        ) as rig:
            lines = b"_e{5,4}:title|text|#a:1\n_sc|db.up|0|#env:test\n"
            await send(scheme, rig.port(), "127.0.0.2", lines)
            await rig.lines(2)
            (interval,) = rig.engine.close(NOW)
            assert interval.events[0].tags == ("a:1", "env:prod", "sender:127.0.0.2")
            assert interval.checks[0].tags == ("env:test", "sender:127.0.0.2")

    run("uvloop", main())


class Resolver:
    """Host names of the test's own, as late as it likes."""

    def __init__(self, names: dict[str, str], delay: float = 0.0) -> None:
        self.names = names
        self.delay = delay
        self.asked: list[str] = []

    async def getnameinfo(self, address: tuple[str, int], flags: int = 0) -> tuple[str, str]:
        """Stands for the loop's own."""
        self.asked.append(address[0])
        await asyncio.sleep(self.delay)
        if address[0] not in self.names:
            raise socket.gaierror("no name")
        return self.names[address[0]], "0"


@both_transports
def test_host_names_are_looked_up_once_and_lines_wait_for_them(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is lost, none goes to another series first, order holds; without a name it is the address."""
    resolver = Resolver({"127.0.0.2": "db1.example", "127.0.0.4": "x" * 10}, delay=0.2)

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getnameinfo", resolver.getnameinfo)
        async with listening(f"{scheme}://127.0.0.1:0", sender_tag=SenderTag.HOST) as rig:
            for n in range(3):
                await send(scheme, rig.port(), "127.0.0.2", b"a:%d|c\n" % 10**n)
                await send(scheme, rig.port(), "127.0.0.3", b"a:1|c\n")
            await rig.lines(6)
            await send(scheme, rig.port(), "127.0.0.2", b"a:1000|c\n")
            await rig.lines(7)
            assert series_of(rig.engine) == {"a|#sender:db1.example": 1111, "a|#sender:127.0.0.3": 3}
            assert sorted(resolver.asked) == ["127.0.0.2", "127.0.0.3"]

    run("asyncio", main())


def test_a_stop_waits_for_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held when the daemon stops is taken before the last flush."""
    resolver = Resolver({"127.0.0.2": "db1.example"}, delay=0.5)

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getnameinfo", resolver.getnameinfo)
        async with listening("udp://127.0.0.1:0", sender_tag=SenderTag.HOST) as rig:
            await send("udp", rig.port(), "127.0.0.2", b"a:1|c")
            await rig.listener.drain()
            assert series_of(rig.engine) == {"a|#sender:db1.example": 1}

    run("asyncio", main())


def test_what_waits_for_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs costs a few megabytes at most, and no line: the address stands in."""
    resolver = Resolver({}, delay=30)
    monkeypatch.setattr(senders_module, "_MOST_HELD", 1000)

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getnameinfo", resolver.getnameinfo)
        async with listening("udp://127.0.0.1:0", sender_tag=SenderTag.HOST) as rig:
            for _ in range(30):
                await send("udp", rig.port(), "127.0.0.2", b"a:1|c\n" * 10)
            await rig.lines(300)
            assert series_of(rig.engine) == {"a|#sender:127.0.0.2": 300}

    run("asyncio", main())


def test_a_silent_sender_is_forgotten_and_a_connected_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet whose addresses change for months fills no table; who comes back is tagged as before."""
    monkeypatch.setattr(senders_module, "_TURN", 0.0)
    table, engine = senders(sender_tag=SenderTag.ADDRESS)
    connected = table.of("10.0.0.1")
    connected.connections = 1
    for n in range(2, 50):
        table.ingest(b"a:1|c", f"10.0.0.{n}", (f"10.0.0.{n}", 1), NOW)
    assert len(table._table) <= 4
    assert len(engine._profiles) <= 5
    assert table.of("10.0.0.1") is connected
    table.ingest(b"a:1|c", "10.0.0.2", ("10.0.0.2", 1), NOW)
    assert series_of(engine)["a|#sender:10.0.0.2"] == 2
