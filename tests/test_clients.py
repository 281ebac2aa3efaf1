"""Real clients from PyPI, unchanged, against the real daemon; values checked in Redis and through the API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from datadog.dogstatsd.base import DogStatsd
from harness import DaemonProcess, wait_for
from statsd import StatsClient, TCPStatsClient

from collector.model import Kind, Series


def settled(daemon: DaemonProcess, selector: str, expected: float) -> None:
    """Waits until a selector has a value, then makes sure that it does not go beyond it."""
    wait_for(lambda: daemon.value(selector) == expected, f"{selector} = {expected}")
    time.sleep(1.2)
    assert daemon.value(selector) == expected


def total_in_redis(daemon: DaemonProcess, name: str, *tags: str) -> float:
    """The running total of a counter as redis-cli would show it."""
    series = Series(Kind.COUNTER, name, tags)
    keys = daemon.keys()
    found: Any = daemon.redis().hget(keys.shard_key(keys.shard(series), b"total").decode(), series.key)
    assert found is not None, series
    return float(found)


def chunks_in_redis(daemon: DaemonProcess, name: str, *tags: str) -> float:
    """The sum of a counter's points over all its chunks."""
    series = Series(Kind.COUNTER, name, tags)
    keys = daemon.keys()
    now = time.time()
    chunks = {keys.chunk(now - 300), keys.chunk(now - 120), keys.chunk(now), keys.chunk(now + 120)}
    client = daemon.redis()
    points: list[Any] = []
    for chunk in chunks:
        reply: Any = client.hvals(keys.chunked(b"c", series, chunk).decode())
        points += reply
    return sum(float(point) for point in points)


def quantile(daemon: DaemonProcess, name: str, q: str) -> float | None:
    """A percentile through the API."""
    return daemon.value(f'{{"{name}", quantile="{q}"}}')


Dogstatsd = Callable[..., DogStatsd]


@pytest.fixture(params=[True, False], ids=["aggregation-off", "aggregation-on"])
def dogstatsd(request: pytest.FixtureRequest, daemon: DaemonProcess) -> Any:
    """DataDog's client with and without its own aggregation, which packs values and sends moves of none."""
    client = DogStatsd(
        host="127.0.0.1",
        port=daemon.port("udp"),
        disable_aggregation=request.param,
        flush_interval=0.1,
        telemetry_min_flush_interval=3600,
    )
    client.test_name = f"dd{int(request.param)}"  # type: ignore[attr-defined]
    yield client
    client.stop()


def test_datadog_counts_gauges_sets_and_timers(daemon: DaemonProcess, dogstatsd: Any) -> None:
    """What the client counted is what Redis and the API hold, tags and sample rates included."""
    name = dogstatsd.test_name
    for _ in range(5):
        dogstatsd.increment(f"{name}.hits", tags=["env:test", "route:/pay"])
    dogstatsd.increment(f"{name}.hits", 10, tags=["route:/pay", "env:test"])
    dogstatsd.decrement(f"{name}.hits", 3, tags=["env:test", "route:/pay"])
    dogstatsd.gauge(f"{name}.level", 41.5)
    dogstatsd.gauge(f"{name}.level", 42.5)
    for value in range(1, 101):
        dogstatsd.timing(f"{name}.latency", value)
        dogstatsd.histogram(f"{name}.size", value / 2)
        dogstatsd.distribution(f"{name}.spread", value * 10)
    for user in ("ada", "grace", "ada"):
        dogstatsd.set(f"{name}.users", user)
    dogstatsd.flush()
    settled(daemon, f'{{"{name}.hits", env="test", route="/pay"}}', 12)
    assert total_in_redis(daemon, f"{name}.hits", "env:test", "route:/pay") == 12
    assert chunks_in_redis(daemon, f"{name}.hits", "env:test", "route:/pay") == 12
    assert daemon.value(f"{name}.level") == 42.5
    assert daemon.value(f"{name}.users") == 2
    for metric, scale in (("latency", 1), ("size", 0.5), ("spread", 10)):
        found = quantile(daemon, f"{name}.{metric}", "0.95")
        assert found == pytest.approx(95 * scale, rel=0.011), metric
        (histogram,) = daemon.query(f"{name}.{metric}")
        assert float(histogram["histogram"][1]["count"]) == 100, metric
        assert float(histogram["histogram"][1]["sum"]) == pytest.approx(5050 * scale), metric


def test_datadog_sample_rate_is_a_weight(daemon: DaemonProcess) -> None:
    """A counter sent at a rate of 0.5 counts twice for each line that was sent."""
    client = DogStatsd(
        host="127.0.0.1", port=daemon.port("udp"), disable_aggregation=True, disable_buffering=True
    )
    sent = 0
    send: Any = client._send

    def counting(packet: str, *more: Any) -> None:
        nonlocal sent
        sent += packet.count("rated:1|c|@0.5")
        send(packet, *more)

    client._send = counting  # type: ignore[assignment]
    for _ in range(200):
        client.increment("rated", sample_rate=0.5)
    client.stop()
    assert 0 < sent < 200
    settled(daemon, "rated", 2 * sent)


def test_datadog_timestamps_go_into_their_own_window(daemon: DaemonProcess) -> None:
    """A gauge and a count with a timestamp are stored at that time, not at the time of arrival."""
    client = DogStatsd(host="127.0.0.1", port=daemon.port("udp"), disable_telemetry=True)
    stamp = int(time.time()) - 120
    client.gauge_with_timestamp("stamped.level", 7, stamp)
    client.count_with_timestamp("stamped.count", 3, stamp)
    client.count_with_timestamp("stamped.stale", 3, stamp - 7200)
    client.stop()
    settled(daemon, "stamped.count", 3)
    for name, value in (("stamped.level", 7.0), ("stamped.count", 3.0)):
        (series,) = daemon.query(f"{name}[5m]")
        assert (float(stamp), value) in [(at, float(text)) for at, text in series["values"]], name
    refused = daemon.get("/api/v1/rejected")
    lines = [line for line in refused if "stamped.stale" in line["line"]]
    assert [line["reason"] for line in lines] == ["stale_timestamp"]


def test_datadog_events_and_checks_are_kept(daemon: DaemonProcess) -> None:
    """Every field of an event and of a service check arrives."""
    client = DogStatsd(host="127.0.0.1", port=daemon.port("udp"), disable_telemetry=True)
    client.event(
        "deploy é",
        "line one\nline two",
        alert_type="warning",
        aggregation_key="key",
        source_type_name="ci",
        priority="low",
        hostname="box",
        date_happened=1656581400,
        tags=["env:test"],
    )
    client.service_check("db.up", 2, tags=["role:primary"], hostname="box", message="no | answer")
    client.stop()
    event = wait_for(lambda: daemon.get("/api/v1/events"), "the event")[0]
    assert event["title"] == "deploy é"
    assert event["text"] == "line one\nline two"
    assert (event["alert"], event["priority"], event["at"]) == ("warning", "low", 1656581400)
    assert (event["aggregation_key"], event["source"], event["host"]) == ("key", "ci", "box")
    assert event["tags"] == ["env:test"]
    check = wait_for(lambda: daemon.get("/api/v1/checks"), "the check")[0]
    assert (check["name"], check["status"], check["host"]) == ("db.up", 2, "box")
    assert (check["message"], check["tags"]) == ("no | answer", ["role:primary"])


@pytest.fixture(params=["udp", "tcp"])
def statsd(request: pytest.FixtureRequest, daemon: DaemonProcess) -> Any:
    """jsocol's client over both of its transports."""
    port = daemon.port(request.param)
    client: Any
    if request.param == "udp":
        client = StatsClient("127.0.0.1", port, prefix="udp")
    else:
        client = TCPStatsClient("127.0.0.1", port, prefix="tcp")
    yield client, request.param
    client.close()


def test_statsd_counts_gauges_sets_timers_and_pipelines(daemon: DaemonProcess, statsd: Any) -> None:
    """Calls, relative gauges, negative gauges (which the client sends as 0 and a move) and a pipeline."""
    client, name = statsd
    client.incr("hits")
    client.incr("hits", 4)
    client.decr("hits", 2)
    client.gauge("level", 10)
    client.gauge("level", -3, delta=True)
    client.gauge("below", -5)
    client.set("users", "ada")
    client.set("users", "grace")
    for value in range(1, 21):
        client.timing("latency", value)
    with client.pipeline() as pipe:
        for _ in range(50):
            pipe.incr("piped")
        pipe.gauge("piped.level", 3)
    settled(daemon, f"{name}.hits", 3)
    settled(daemon, f"{name}.piped", 50)
    assert total_in_redis(daemon, f"{name}.hits") == 3
    assert daemon.value(f"{name}.level") == 7
    assert daemon.value(f"{name}.below") == -5
    assert daemon.value(f"{name}.piped.level") == 3
    assert daemon.value(f"{name}.users") == 2
    assert quantile(daemon, f"{name}.latency", "0.9") == pytest.approx(18, rel=0.011)


def test_clients_that_say_localhost_are_heard_on_both_families(daemon: DaemonProcess) -> None:
    """`localhost` is ::1 for some clients and 127.0.0.1 for others: both arrive and add up."""
    assert daemon.port("udp", "[::1]") == daemon.port("udp")
    for host in ("127.0.0.1", "::1"):
        client = StatsClient(host, daemon.port("udp"), ipv6=host == "::1")
        client.incr("families", 5)
        client.close()
    settled(daemon, "families", 10)
