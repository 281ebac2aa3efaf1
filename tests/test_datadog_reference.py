"""DataDog's own client is the reference: what it emits for each call, field by field as we read it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from datadog.dogstatsd.base import DogStatsd

from collector.model import Kind
from collector.statsd.events import parse_check, parse_event
from collector.statsd.lines import Profile, parse_line

PROFILE = Profile()


class Wire:
    """A UDP socket that records what a client sends."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5)
        self.port = self.sock.getsockname()[1]

    def client(self, **options: Any) -> DogStatsd:
        """A client that sends here, without its own telemetry."""
        settings = {"disable_telemetry": True, "disable_aggregation": True, "disable_buffering": True}
        return DogStatsd(host="127.0.0.1", port=self.port, **{**settings, **options})

    def line(self) -> bytes:
        """The next datagram, which holds one line."""
        return self.sock.recv(65536).rstrip(b"\n")


@pytest.fixture
def wire() -> Iterator[Wire]:
    found = Wire()
    yield found
    found.sock.close()


Call = Callable[[DogStatsd], object]


@pytest.mark.parametrize(
    ("call", "kind", "values"),
    [
        (lambda c: c.increment("n"), Kind.COUNTER, [1]),
        (lambda c: c.increment("n", 7), Kind.COUNTER, [7]),
        (lambda c: c.decrement("n", 2), Kind.COUNTER, [-2]),
        (lambda c: c.increment("n", 0.5), Kind.COUNTER, [0.5]),
        (lambda c: c.gauge("n", 1.25), Kind.GAUGE, [1.25]),
        (lambda c: c.gauge("n", 1e22), Kind.GAUGE, [1e22]),
        (lambda c: c.histogram("n", 9.3e-05), Kind.TIMER, [9.3e-05]),
        (lambda c: c.distribution("n", 3), Kind.TIMER, [3]),
        (lambda c: c.timing("n", 231), Kind.TIMER, [231]),
        (lambda c: c.set("n", "ada"), Kind.SET, [b"ada"]),
        (lambda c: c.set("n", 17), Kind.SET, [b"17"]),
    ],
)
def test_each_call_is_read_as_it_was_meant(wire: Wire, call: Call, kind: Kind, values: list[Any]) -> None:
    """Name, kind and value of every kind of metric; nothing odd, nothing refused."""
    client = wire.client()
    call(client)
    parsed = parse_line(wire.line(), PROFILE)
    assert not parsed.refusals
    (bit,) = parsed.bits
    assert (bit.head.name, bit.head.kind, bit.values, bit.head.odd) == ("n", kind, values, [])
    assert bit.head.weight == 1
    client.stop()


def test_tags_constant_tags_and_namespace(wire: Wire) -> None:
    """Tags of the call and of the client arrive together, values with colons whole."""
    client = wire.client(namespace="app", constant_tags=["env:test"])
    client.increment("n", tags=["url:http://x:80/y", "flag", "é:ü"])
    (bit,) = parse_line(wire.line(), PROFILE).bits
    assert bit.head.name == "app.n"
    assert sorted(bit.head.tags) == ["env:test", "flag", "url:http://x:80/y", "é:ü"]
    client.stop()


def test_sample_rate_becomes_a_weight(wire: Wire) -> None:
    """The client says |@rate; a line stands for 1/rate of them."""
    client = wire.client()
    for _ in range(200):
        client.increment("n", sample_rate=0.25)
    (bit,) = parse_line(wire.line(), PROFILE).bits
    assert bit.head.weight == 4
    client.stop()


def test_timestamps(wire: Wire) -> None:
    """Gauges and counts with a timestamp carry it as T."""
    client = wire.client()
    client.gauge_with_timestamp("n", 1, 1656581400)
    client.count_with_timestamp("n", 2, 1656581401)
    gauge, count = (parse_line(wire.line(), PROFILE).bits[0] for _ in range(2))
    assert (gauge.head.kind, gauge.head.timestamp, gauge.values) == (Kind.GAUGE, 1656581400, [1])
    assert (count.head.kind, count.head.timestamp, count.values) == (Kind.COUNTER, 1656581401, [2])
    client.stop()


def test_timed_sends_a_timer(wire: Wire) -> None:
    """The context manager sends how long it took, in milliseconds or seconds."""
    client = wire.client()
    with client.timed("n"):
        pass
    (bit,) = parse_line(wire.line(), PROFILE).bits
    assert bit.head.kind is Kind.TIMER
    assert isinstance(bit.values[0], int | float)
    assert 0 <= bit.values[0] < 1000
    client.stop()


def test_container_and_cardinality_fields_are_no_oddity(wire: Wire) -> None:
    """Fields of newer protocol versions are known, and make no tag of their own."""
    client = wire.client()
    client._container_id = "ci-abc123"
    client.increment("n", tags=["a:1"], cardinality="low")
    line = wire.line()
    assert b"|c:ci-abc123" in line
    assert b"|card:low" in line
    (bit,) = parse_line(line, PROFILE).bits
    assert (bit.head.tags, bit.head.odd) == (["a:1"], [])
    (kept,) = parse_line(line, Profile(keep_container=True)).bits
    assert sorted(kept.head.tags) == ["a:1", "container_id:ci-abc123"]
    client.stop()


def test_buffered_lines_share_a_datagram(wire: Wire) -> None:
    """A buffering client joins lines by newlines; each is read."""
    client = wire.client(disable_buffering=False)
    for n in range(5):
        client.increment(f"n{n}")
    client.flush()
    lines = wire.line().split(b"\n")
    assert [parse_line(line, PROFILE).bits[0].head.name for line in lines] == [f"n{n}" for n in range(5)]
    client.stop()


def test_aggregation_sums_counts_and_keeps_the_last_gauge(wire: Wire) -> None:
    """With the client's aggregation one line stands for many calls."""
    client = wire.client(disable_aggregation=False, disable_buffering=False, flush_interval=1)
    for _ in range(10):
        client.increment("hits", 2)
    client.gauge("level", 1)
    client.gauge("level", 2)
    client.set("users", "ada")
    client.flush_aggregated_metrics()
    client.flush()
    found: dict[str, Any] = {}
    while len(found) < 3:
        for line in wire.line().split(b"\n"):
            (bit,) = parse_line(line, PROFILE).bits
            found[bit.head.name] = bit.values
    assert found == {"hits": [20], "level": [2], "users": [b"ada"]}
    client.stop()


def test_every_field_of_an_event(wire: Wire) -> None:
    """Title and text by their lengths in bytes, newlines escaped by the client and restored here."""
    client = wire.client()
    client.event(
        "tïtle",
        "one\ntwo|three",
        alert_type="error",
        aggregation_key="key",
        source_type_name="src",
        date_happened=1656581400,
        priority="low",
        hostname="box",
        tags=["a:1", "b"],
    )
    event, odd = parse_event(wire.line())
    assert odd == []
    assert (event.title, event.text) == ("tïtle", "one\ntwo|three")
    assert (event.alert, event.aggregation_key, event.source) == ("error", "key", "src")
    assert (event.at, event.priority, event.host) == (1656581400, "low", "box")
    assert event.tags == ("a:1", "b")
    client.stop()


def test_every_field_of_a_service_check(wire: Wire) -> None:
    """Status, time, host, tags, and a message that may hold bars."""
    client = wire.client()
    client.service_check("db", 2, tags=["a:1"], timestamp=1656581400, hostname="box", message="no | answer")
    check, odd = parse_check(wire.line())
    assert odd == []
    assert (check.name, check.status, check.at, check.host) == ("db", 2, 1656581400, "box")
    assert (check.message, check.tags) == ("no | answer", ("a:1",))
    client.stop()


def test_sampled_timers_of_the_aggregation_keep_their_number(wire: Wire) -> None:
    """Of many samples the client sends a few, each with the rate that makes them as many as there were."""
    client = wire.client(disable_buffering=False)
    client.enable_aggregation(flush_interval=60, max_samples_per_context=4)
    for value in range(60):
        client.histogram("h", value, tags=["a:1"])
        client.distribution("d", value)
        client.timing("t", value)
    client.flush_aggregated_metrics()
    client.flush()
    weights: dict[str, list[float]] = {"h": [], "d": [], "t": []}
    while sum(map(len, weights.values())) < 12:
        for line in wire.line().split(b"\n"):
            parsed = parse_line(line, PROFILE)
            assert not parsed.refusals
            (bit,) = parsed.bits
            assert bit.head.kind is Kind.TIMER
            weights[bit.head.name] += [bit.head.weight] * len(bit.values)
    assert weights == {name: [pytest.approx(15)] * 4 for name in "hdt"}
    client.stop()


def test_the_origin_behind_a_check_is_no_part_of_its_message(wire: Wire) -> None:
    """The client puts its container behind the message, and escapes what would look like a message."""
    client = wire.client(container_id="ci-abc123", constant_tags=["env:test"])
    client.service_check("db", 1, tags=["a:1"], message="m: of\nthe disk | 99 %", cardinality="low")
    line = wire.line()
    assert line.endswith(b"|c:ci-abc123|card:low")
    check, odd = parse_check(line)
    assert (check.message, check.tags, odd) == ("m: of\nthe disk | 99 %", ("a:1", "env:test"), [])
    client.stop()


def test_the_origin_behind_an_event_is_no_oddity(wire: Wire) -> None:
    """Events carry container and cardinality too, and the client's own tags."""
    client = wire.client(container_id="ci-abc123", constant_tags=["env:test"])
    client.event("title", "", cardinality="low")
    line = wire.line()
    assert line.endswith(b"|c:ci-abc123|card:low")
    event, odd = parse_event(line)
    assert (event.title, event.text, event.tags, odd) == ("title", "", ("env:test",), [])
    client.stop()


@pytest.mark.parametrize(
    "tag", ["a b", "a,b", "a|b", "a\nb", "url:http://h:80/p?q=1#x", "{'env': 't'}", ":v", "é:ü"]
)
def test_strange_tags_never_cost_the_metric(wire: Wire, tag: str) -> None:
    """Whatever the client leaves of a tag, the value arrives and the good tag beside it too."""
    client = wire.client()
    client.gauge("n", 3, tags=[tag, "good:1"])
    parsed = parse_line(wire.line(), PROFILE)
    assert not parsed.refusals
    (bit,) = parsed.bits
    assert bit.values == [3]
    assert "good:1" in bit.head.tags
    client.stop()


@pytest.mark.parametrize(
    ("member", "expected"),
    [("a:b", b"a:b"), ("2001:db8::1", b"2001:db8::1"), ("é", "é".encode()), (1.5, b"1.5")],
)
def test_set_members_arrive_as_they_are(wire: Wire, member: Any, expected: bytes) -> None:
    """A member may hold colons and any letters."""
    client = wire.client()
    client.set("n", member, tags=["a:1"])
    (bit,) = parse_line(wire.line(), PROFILE).bits
    assert bit.values == [expected]
    client.stop()
