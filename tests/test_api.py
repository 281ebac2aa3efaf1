"""The HTTP API over a real server: shapes of answers and of errors, and who is let in."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from collector.addresses import Address
from collector.api import create_app
from collector.api.app import ERRORS
from collector.embedded import EmbeddedServer
from collector.engine import Engine, Limits, PureEngine
from collector.errors import StoreError
from collector.http_settings import HostPort, HttpSettings
from collector.listeners import Listener, ListenerSettings, create
from collector.model import Kind, Number, Series
from collector.sketch import Sketch, bin_bounds, bin_index
from collector.store.compaction import Compactor
from collector.store.keys import KeySpace
from collector.store.memory import MemoryGuard
from collector.store.writer import Writer
from collector.telemetry import FlushStats

NOW = 1_700_000_000.0
LOOPBACK = HttpSettings(listen=HostPort("127.0.0.1", 0))


# ---------------------------------------------------------------------- a store in memory


@dataclass
class MemoryReader:
    """Answers as the store's reader does, from dictionaries; `away` makes it fail as one that is gone."""

    points: dict[Series, dict[int, Any]] = field(default_factory=dict)
    kept: float = 7 * 86400.0
    changed: dict[Series, float] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    away: str = ""
    bug: bool = False
    on_read: Callable[[], None] = lambda: None

    def add(self, kind: Kind, name: str, points: dict[int, Any], *tags: str) -> Series:
        """A series with its slots: increments, values, sketches, or members by minute."""
        series = Series(kind, name, tags)
        self.points[series] = {int(NOW) + at: value for at, value in points.items()}
        self.changed[series] = max(self.points[series], default=NOW)
        return series

    def _check(self) -> None:
        if self.bug:
            raise ZeroDivisionError("secret of the implementation")
        if self.away:
            raise StoreError(self.away)

    def _slots(self, series: Sequence[Series], start: float, end: float) -> list[list[tuple[int, Any]]]:
        self._check()
        return [sorted((at, v) for at, v in self.points[one].items() if start <= at < end) for one in series]

    async def find(self, matches: Callable[[Series], bool], now: float) -> list[Series]:
        self._check()
        found = [one for one in self.points if self.changed[one] >= now - 3600 and matches(one)]
        return sorted(found, key=lambda one: one.key)

    async def totals(self, series: Sequence[Series]) -> list[Number]:
        self._check()
        return [sum(self.points[one].values()) for one in series]

    async def gauges(self, series: Sequence[Series], now: float) -> list[tuple[float, Number] | None]:
        self._check()
        newest = [max(self.points[one].items()) for one in series]
        return [(float(at), value) if at >= now - 3600 else None for at, value in newest]

    async def increments(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]:
        found = self._slots(series, start, end)
        self.on_read()
        return found

    async def gauge_points(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Number]]]:
        return self._slots(series, start, end)

    async def sketches(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, Sketch]]]:
        return self._slots(series, start, end)

    async def uniques(
        self, series: Sequence[Series], start: float, end: float
    ) -> list[list[tuple[int, int]]]:
        return self._slots(series, start, end)

    async def events(self, count: int) -> list[dict[str, Any]]:
        self._check()
        return self.entries[:count]

    async def checks(self, count: int) -> list[dict[str, Any]]:
        self._check()
        return self.entries[:count]


def sketch_of(*values: float) -> Sketch:
    """A sketch of some values."""
    sketch = Sketch()
    sketch.add(values)
    return sketch


# ---------------------------------------------------------------------- a server around it


def _writer() -> Writer:
    return Writer(KeySpace("m", 10), max_bytes=2**20, samples=200, refresh=60)


@dataclass
class Parts:
    """What a daemon is to the API."""

    engine: Engine = field(default_factory=lambda: PureEngine(time.time()))
    listeners: list[Listener] = field(default_factory=list)
    writer: Writer = field(default_factory=_writer)
    flushes: FlushStats = field(default_factory=FlushStats)
    compactor: Compactor | None = None
    memory: MemoryGuard = field(default_factory=lambda: MemoryGuard(_writer()))
    started: float = NOW - 60
    embedded: EmbeddedServer | None = None
    store_url: str = "redis://collector:***@localhost:6379/0"
    stopping: bool = False

    def clock(self) -> float:
        """Stands still."""
        return NOW


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        """The body, which has to be JSON."""
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        return json.loads(self.text)

    @property
    def data(self) -> Any:
        """The data of a success."""
        assert self.status == 200, self.text
        assert self.json["status"] == "success"
        return self.json["data"]

    def error(self, status: int, kind: str) -> str:
        """The message of an error of a kind."""
        assert self.status == status, self.text
        body = self.json
        assert (body["status"], body["errorType"]) == ("error", kind)
        assert "Traceback" not in self.text
        return str(body["error"])


@dataclass
class Server:
    """The API on a free port, with what stands behind it."""

    parts: Parts
    reader: MemoryReader
    session: aiohttp.ClientSession
    port: int

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Answer:
        """One request."""
        async with self.session.request(method, f"http://127.0.0.1:{self.port}{path}", **options) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def query(self, query: str, **parameters: str) -> Answer:
        """An instant query."""
        return await self.ask("/api/v1/query", params={"query": query, **parameters})

    async def result(self, query: str, **parameters: str) -> list[dict[str, Any]]:
        """The result of a query that has one."""
        answer = await self.query(query, **parameters)
        result: list[dict[str, Any]] = answer.data["result"]
        return result

    async def value(self, query: str, **parameters: str) -> str:
        """The text of the one value of a query."""
        (one,) = await self.result(query, **parameters)
        text: str = one["value"][1]
        return text


@asynccontextmanager
async def serving(settings: HttpSettings = LOOPBACK) -> AsyncIterator[Server]:
    """A server with nothing in it yet."""
    parts, reader = Parts(), MemoryReader()
    runner = web.AppRunner(create_app(parts, reader, settings), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield Server(parts, reader, session, runner.addresses[0][1])
    finally:
        await runner.cleanup()


def on_server(test: Callable[[Server], Coroutine[Any, Any, None]], settings: HttpSettings = LOOPBACK) -> None:
    """Runs an async test against a server of its own."""

    async def run() -> None:
        async with serving(settings) as server:
            await test(server)

    uvloop.run(run())


# ---------------------------------------------------------------------- instant queries


def test_a_counter_answers_with_its_running_total_in_prometheus_shape() -> None:
    """A vector: the name as it was sent, tags as labels, [time, "value"]; integers keep every digit."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "api.hits", {-20: 2**53, -10: 1}, "route:/pay", "bare")
        answer = await server.query("api.hits")
        assert answer.json == {
            "status": "success",
            "data": {
                "resultType": "vector",
                "result": [
                    {
                        "metric": {"__name__": "api.hits", "route": "/pay", "bare": ""},
                        "value": [1700000000, "9007199254740993"],
                    }
                ],
            },
        }
        assert await server.value('api_hits{route=~"/p.*"}') == "9007199254740993"

    on_server(test)


def test_a_gauge_answers_with_its_value_and_a_set_with_its_newest_minute() -> None:
    """A set counts the newest minute that has members, if it is of the last five."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.GAUGE, "level", {-100: 5, -50: -0.25})
        server.reader.add(Kind.SET, "users", {-200: 7, -140: 9, -560: 99})
        server.reader.add(Kind.SET, "old.users", {-400: 7})
        assert await server.value("level") == "-0.25"
        assert await server.value("users") == "9"
        assert await server.result("old.users") == []

    on_server(test)


def test_a_timer_answers_with_a_native_histogram_of_five_minutes() -> None:
    """Buckets as Prometheus prints them: [rule, left, right, count] of texts, ascending."""

    async def test(server: Server) -> None:
        slots = {-310: sketch_of(1000), -20: sketch_of(-2, 0, 3), 0: sketch_of(3, 100)}
        server.reader.add(Kind.TIMER, "t", slots)
        (one,) = await server.result("t")
        at, histogram = one["histogram"]
        below, upto3, upto100 = (bin_bounds(bin_index(value)) for value in (2, 3, 100))
        assert one["metric"] == {"__name__": "t"}
        assert at == 1700000000
        assert histogram == {
            "count": "5",
            "sum": "104",
            "buckets": [
                [1, f"-{below[1]!r}".removesuffix(".0"), f"-{below[0]!r}", "1"],
                [3, "0", "0", "1"],
                [0, repr(upto3[0]), repr(upto3[1]), "2"],
                [0, repr(upto100[0]), repr(upto100[1]), "1"],
            ],
        }

    on_server(test)


def test_a_quantile_of_a_timer_is_a_number_and_keeps_its_label() -> None:
    """quantile="0.5" is computed from the sketch of the last five minutes."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.TIMER, "t", {-20: sketch_of(*range(1, 51)), -10: sketch_of(*range(51, 101))})
        (one,) = await server.result('t{quantile="0.95"}')
        assert one["metric"] == {"__name__": "t", "quantile": "0.95"}
        assert float(one["value"][1]) == pytest.approx(95, rel=0.011)
        assert await server.value('t{quantile="1"}') == "100"

    on_server(test)


def test_two_kinds_of_one_name_are_told_apart_by_a_label() -> None:
    """`kind` is there only where it is needed, and never in place of a tag that a client sent."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "twin", {-10: 1})
        server.reader.add(Kind.GAUGE, "twin", {-10: 2}, "kind:own")
        server.reader.add(Kind.GAUGE, "atwin", {-10: 2})
        answers = await server.result('{__name__=~".*twin"}')
        assert [one["metric"] for one in answers] == [
            {"__name__": "twin", "kind": "counter"},
            {"__name__": "atwin"},
            {"__name__": "twin", "kind": "own"},
        ]

    on_server(test)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (5.0, "5"),
        (-0.5, "-0.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-5, "0.00001"),
        (1e-7, "1e-07"),
        (1e16, "10000000000000000"),
        (1.2345678901234568e20, "123456789012345680000"),
        (1e21, "1e+21"),
        (2**63 - 1, "9223372036854775807"),
        (float("nan"), "NaN"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
    ],
)
def test_numbers_are_printed_as_prometheus_does(value: Number, text: str) -> None:
    """The shortest text that reads back; an exponent only below 1e-6 and from 1e21 on."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.GAUGE, "g", {-10: value})
        assert await server.value("g") == text

    on_server(test)


def test_nothing_found_is_a_success_with_an_empty_result() -> None:
    """For an unknown name, for an idle series, and for a time before anything is kept."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "idle", {-4000: 1})
        server.reader.add(Kind.COUNTER, "here", {-10: 1})
        for query in ("unknown", "idle", "unknown[5m]"):
            answer = await server.query(query)
            kind = "matrix" if "[" in query else "vector"
            assert answer.data == {"resultType": kind, "result": []}
        assert await server.result("here", time="1000") == []

    on_server(test)


# ---------------------------------------------------------------------- the past


def test_a_query_about_the_past_answers_what_was_true_then() -> None:
    """A total without what came later, the gauge that was set before, the sketch and minutes up to then."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "c", {-300: 1, -200: 10, -100: 100, 30: 1000})
        server.reader.add(Kind.GAUGE, "g", {-300: 1, -200: 2, -100: 3})
        server.reader.add(Kind.SET, "s", {-260: 4, -80: 5})
        server.reader.add(Kind.TIMER, "t", {-160: sketch_of(4), -10: sketch_of(5)})
        then = {"time": str(NOW - 150)}
        assert await server.value("c") == "1111"
        assert await server.value("c", **then) == "11"
        assert await server.result("c", time=str(NOW - 301)) == []
        assert await server.value("g", **then) == "2"
        assert await server.result("g", time=str(NOW - 301)) == []
        assert await server.value("s", **then) == "4"
        assert await server.value('t{quantile="1"}', **then) == "4"
        (one,) = await server.result("c", **then)
        assert one["value"][0] == NOW - 150

    on_server(test)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1699999850", 1699999850),
        ("1699999850.5", 1699999850.5),
        ("1699999850.12345", 1699999850.123),
        ("2023-11-14T22:10:50Z", 1699999850),
        ("2023-11-14T22:10:50.123456789Z", 1699999850.123),
        ("2023-11-15T00:10:50.5+02:00", 1699999850.5),
    ],
)
def test_time_is_unix_seconds_or_rfc_3339(text: str, seconds: float) -> None:
    """Both of Prometheus' forms; the answer carries the time to the millisecond."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "c", {-300: 1})
        (one,) = await server.result("c", time=text)
        assert one["value"] == [seconds, "1"]

    on_server(test)


# ---------------------------------------------------------------------- ranges


def test_a_range_answers_with_a_matrix_of_every_kind() -> None:
    """Totals at each point, values, minutes, histograms; points before and after the range are left out."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "c", {-900: 5, -60: 1, -50: 2.5, 0: 3, 20: 100})
        server.reader.add(Kind.GAUGE, "g", {-900: 5, -60: 1, 0: 3})
        server.reader.add(Kind.SET, "s", {-920: 1, -80: 2, -20: 3})
        server.reader.add(Kind.TIMER, "t", {-900: sketch_of(1), -60: sketch_of(2), -50: sketch_of(3, 4)})
        found = {one["metric"]["__name__"]: one for one in await server.result('{__name__=~"[cgst]"}[10m]')}
        assert (await server.query("c[10m]")).data["resultType"] == "matrix"
        at = int(NOW)
        assert found["c"]["values"] == [[at - 60, "6"], [at - 50, "8.5"], [at, "11.5"]]
        assert found["g"]["values"] == [[at - 60, "1"], [at, "3"]]
        assert found["s"]["values"] == [[at - 80, "2"], [at - 20, "3"]]
        histograms = [(time, one["count"], one["sum"]) for time, one in found["t"]["histograms"]]
        assert histograms == [(at - 60, "1", "2"), (at - 50, "2", "7")]
        (quantiles,) = await server.result('t{quantile="1"}[10m]')
        assert quantiles["values"] == [[at - 60, "2"], [at - 50, "4"]]
        (earlier,) = await server.result("c[10m]", time=str(at - 55))
        assert earlier["values"] == [[at - 60, "6"]]

    on_server(test)


def test_a_long_range_comes_whole() -> None:
    """Thousands of numbers and hundreds of histograms in one series, which are printed and sent in parts."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.GAUGE, "g", {-at: at for at in range(9000)})
        server.reader.add(Kind.TIMER, "t", {-at: sketch_of(*range(at, 20 + at)) for at in range(500)})
        ((gauge,), (timer,)) = [await server.result(f"{name}[3h]") for name in "gt"]
        assert gauge["values"] == [[NOW - at, str(at)] for at in reversed(range(9000))]
        counts = [(at, one["count"], one["sum"]) for at, one in timer["histograms"]]
        assert counts == [(NOW - at, "20", str(sum(range(at, 20 + at)))) for at in reversed(range(500))]

    on_server(test)


def test_a_flush_in_the_middle_of_a_query_does_not_tear_totals_and_increments_apart() -> None:
    """They are read again when the total changed meanwhile: no point is short of what was flushed."""

    async def test(server: Server) -> None:
        series = server.reader.add(Kind.COUNTER, "c", {-60: 1, -50: 2})
        flushes = [{-40: 4}, {-30: 8}]

        def flush() -> None:
            if flushes:
                for at, value in flushes.pop().items():
                    server.reader.points[series][int(NOW) + at] = value

        server.reader.on_read = flush
        (one,) = await server.result("c[10m]")
        totals = [int(text) for _, text in one["values"]]
        assert totals == [1, 3, 7, 15]

    on_server(test)


def test_a_query_that_reads_too_much_is_refused_before_it_reads() -> None:
    """422 with the size and the remedy, however long the range is."""

    async def test(server: Server) -> None:
        for n in range(200):
            server.reader.add(Kind.COUNTER, "c", {-10: 1}, f"n:{n}")
        assert "narrow it" in (await server.query("c[10y]")).error(422, "execution")
        assert len(await server.result("c[1h]")) == 200
        (one,) = await server.result('c{n="7"}[290y]')
        assert one["values"] == [[NOW - 10, "1"]]

    on_server(test)


def test_many_series_come_in_one_answer_without_holding_the_loop() -> None:
    """20,000 series are read and printed in parts: other requests are answered meanwhile."""

    async def test(server: Server) -> None:
        for n in range(20_000):
            server.reader.add(Kind.COUNTER, "c", {-10: n}, f"n:{n}")
        task = asyncio.create_task(server.result("c"))
        answered = 0
        while not task.done():
            assert (await server.ask("/-/healthy")).status == 200
            answered += 1
        values = {one["metric"]["n"]: one["value"][1] for one in task.result()}
        assert values == {str(n): str(n) for n in range(20_000)}
        assert answered > 3

    on_server(test)


# ---------------------------------------------------------------------- parameters and errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "query is missing"),
        ({"query": ""}, "query is missing"),
        ({"query": "rate(a[5m])"}, "1:1: the function rate() is not answered: only a selector"),
        ({"query": "a{"}, "1:3: "),
        ({"query": "a", "time": "yesterday"}, "time"),
        ({"query": "a", "time": "2023-11-14"}, "RFC 3339"),
        ({"query": "a", "time": "2023-11-14T22:10:50"}, "RFC 3339"),
        ({"query": "a", "time": "2023-13-14T22:10:50Z"}, "time"),
        ({"query": "a", "time": "NaN"}, "time"),
        ({"query": "a", "time": "1_0"}, "time"),
        ({"query": "a", "time": "-1"}, "time"),
        ({"query": "a", "time": "9" * 15}, "out of range"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_bad_query_is_bad_data_and_says_what_to_do(
    method: str, parameters: dict[str, str], message: str
) -> None:
    """400 in Prometheus' error shape, by GET and by form."""

    async def test(server: Server) -> None:
        given = {"params": parameters} if method == "GET" else {"data": parameters}
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
        answer = await server.ask("/api/v1/query", method, headers=headers, **given)
        assert message in answer.error(400, "bad_data")

    on_server(test)


def test_an_error_in_a_query_carries_its_place() -> None:
    """Line, column and offset, so that a face can point at it."""

    async def test(server: Server) -> None:
        answer = await server.query("a\n + b")
        answer.error(400, "bad_data")
        assert answer.json["position"] == {"line": 2, "column": 2, "offset": 3}

    on_server(test)


def test_a_form_asks_as_a_url_does() -> None:
    """POST with the query in the body, in the URL, or in both: then the body counts."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "é.hits", {-10: 3})
        server.reader.add(Kind.COUNTER, "other", {-10: 4})
        form = {"query": '{"é.hits"}'}
        for data, params in ((form, {}), (form, {"query": "other"})):
            answer = await server.ask("/api/v1/query", "POST", data=data, params=params)
            assert answer.data["result"][0]["value"][1] == "3"
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=no-such"}
        answer = await server.ask("/api/v1/query", "POST", data=b"query=other", headers=headers)
        assert answer.data["result"][0]["value"][1] == "4"

    on_server(test)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"query=%FF", 400, "cannot be read"),
        (b"query=\xff", 400, "cannot be read"),
        (b"&".join([b"x=1"] * 200), 400, "cannot be read"),
        (b"query=" + b"a" * 70_000, 413, "larger than"),
    ],
)
def test_a_form_that_cannot_be_read_is_bad_data(body: bytes, status: int, message: str) -> None:
    """Bytes that are no UTF-8, fields without number, a body without end."""

    async def test(server: Server) -> None:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await server.ask("/api/v1/query", "POST", data=body, headers=headers)
        assert message in answer.error(status, "bad_data")

    on_server(test)


PATHS = ["query?query=a", "query?query=a[5m]", "events", "checks"]


@pytest.mark.parametrize("path", PATHS)
def test_a_store_that_is_away_is_unavailable(path: str) -> None:
    """503 with what the store said."""

    async def test(server: Server) -> None:
        server.reader.away = "Connection refused"
        answer = await server.ask(f"/api/v1/{path}")
        assert "Connection refused" in answer.error(503, "unavailable")

    on_server(test)


@pytest.mark.parametrize("path", PATHS)
def test_a_bug_is_internal_logged_and_not_shown(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """500 without a word of what went wrong; the log has the traceback."""

    async def test(server: Server) -> None:
        server.reader.bug = True
        answer = await server.ask(f"/api/v1/{path}")
        assert "secret" not in answer.error(500, "internal")

    with caplog.at_level(logging.ERROR):
        on_server(test)
    (record,) = [one for one in caplog.records if one.message.startswith("http.bug")]
    assert record.exc_info is not None


def test_unknown_paths_and_methods_are_told_in_the_same_shape() -> None:
    """404 names the path; 405 names the methods that there are."""

    async def test(server: Server) -> None:
        for path in ("/", "/api/v1/query_range", "/api/v1/query/", "/metrics/x", "/..%2f..%2fetc/passwd"):
            (await server.ask(path)).error(404, "not_found")
        for path, method in (("/metrics", "DELETE"), ("/api/v1/status", "PUT"), ("/-/ready", "OPTIONS")):
            answer = await server.ask(path, method)
            answer.error(405, "method_not_allowed")
            assert answer.headers["Allow"] == "GET,HEAD"

    on_server(test)


def test_docs_list_every_route_and_every_error() -> None:
    """docs/http.md has a row for each path with its methods, and for each status; and no other."""
    app = create_app(Parts(), MemoryReader(), LOOPBACK)
    routes: dict[str, set[str]] = {}
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource is not None:
            routes.setdefault(route.resource.canonical, set()).add(route.method)
    text = (Path(__file__).parent.parent / "docs" / "http.md").read_text()
    rows = re.findall(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|", text, re.M)
    assert {path: set(methods.split(", ")) for path, methods in rows} == routes
    errors = {int(status): kind for status, kind in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.M)}
    assert errors == ERRORS


def test_bytes_that_are_no_http_are_refused_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A client of another protocol gets 400, and the next request is answered."""

    async def test(server: Server) -> None:
        for junk in (
            b"foo:1|c\n\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(junk)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert b" 400 " in answer.split(b"\r\n")[0]
            assert b"Traceback" not in answer
        assert (await server.ask("/-/healthy")).status == 200

    with caplog.at_level(logging.INFO):
        on_server(test)
    assert not [one for one in caplog.records if one.exc_info]


# ---------------------------------------------------------------------- health, status, lists


def test_ready_follows_the_store_and_the_stop_and_says_why_not() -> None:
    """Healthy always; ready from the first contact with the store until a stop begins; one line each."""

    async def test(server: Server) -> None:
        parts = server.parts
        assert (await server.ask("/-/healthy")).status == 200
        answer = await server.ask("/-/ready")
        assert (answer.status, answer.text) == (503, "the store was not reached yet: not tried yet\n")
        parts.writer.sender._error = "Connection\nrefused"
        answer = await server.ask("/-/ready")
        assert (answer.status, answer.text) == (503, "the store was not reached yet: Connection refused\n")
        parts.writer.sender.ever_up = True
        answer = await server.ask("/-/ready")
        assert (answer.status, answer.text) == (200, "ready\n")
        parts.stopping = True
        assert (await server.ask("/-/ready")).status == 503
        assert (await server.ask("/-/healthy")).status == 200
        assert answer.headers["Content-Type"].startswith("text/plain")

    on_server(test)


def test_metrics_are_served_with_the_type_that_prometheus_asks_for() -> None:
    """Text format 0.0.4; HEAD gives the headers alone."""

    async def test(server: Server) -> None:
        answer = await server.ask("/metrics")
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "\ncollector_series 0\n" in answer.text
        head = await server.ask("/metrics", "HEAD")
        assert (head.status, head.text) == (200, "")

    on_server(test)


def test_status_tells_what_runs_and_how_it_fares() -> None:
    """Version, engine, uptime, listeners, store without password, series, flushes, refusals, limits."""

    async def test(server: Server) -> None:
        parts = server.parts
        settings = ListenerSettings(url=Address.parse("udp://127.0.0.1:0"))
        listener = create(settings, parts.engine, Limits(), time.time)
        await listener.open()
        parts.listeners.append(listener)
        parts.engine.ingest(0, b"bad\ngood:1|c", ("127.0.0.1", 5), time.time())
        parts.flushes.add(seconds=0.5, points=3, window_end=int(NOW))
        parts.writer.outbox.ready.batches = 2
        data = (await server.ask("/api/v1/status")).data
        await listener.close()
        assert data["engine"] == server.parts.engine.name
        assert data["version"]
        assert data["uptime_seconds"] == 60
        assert data["listeners"][0]["url"] == "udp://127.0.0.1:0"
        assert data["listeners"][0]["addresses"][0].startswith("udp://127.0.0.1:")
        assert data["store"]["url"] == "redis://collector:***@localhost:6379/0"
        assert data["store"]["embedded_pid"] is None
        assert (data["store"]["up"], data["store"]["pending_batches"]) == (False, 2)
        assert (data["series"], data["rejected"]) == (1, {"no_value": 1})
        assert data["flushes"]["count"] == 1

    on_server(test)


def test_rejected_shows_the_last_refused_lines_newest_first() -> None:
    """Time, reason, message, sender and the escaped line of each."""

    async def test(server: Server) -> None:
        server.parts.engine.refuse("no_value", b"first", ("127.0.0.1", 5), NOW - 1)
        server.parts.engine.refuse("bad_type", b"x:1|\x1b", ("::1", 6), NOW)
        data = (await server.ask("/api/v1/rejected")).data
        assert [(one["at"], one["reason"], one["sender"], one["line"]) for one in data] == [
            (NOW, "bad_type", "[::1]:6", "x:1|\\x1b"),
            (NOW - 1, "no_value", "127.0.0.1:5", "first"),
        ]
        assert data[0]["message"]

    on_server(test)


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/checks"])
def test_events_and_checks_are_listed_up_to_a_limit(path: str) -> None:
    """100 unless another number from 1 to 1000 is given."""

    async def test(server: Server) -> None:
        server.reader.entries = [{"at": n, "title": "é"} for n in range(2000)]
        assert len((await server.ask(path)).data) == 100
        assert (await server.ask(path, params={"limit": "2"})).data == server.reader.entries[:2]
        assert len((await server.ask(path, params={"limit": "1000"})).data) == 1000
        for limit in ("0", "1001", "-1", "x", "", "٣", "9" * 5000):
            answer = await server.ask(path, params={"limit": limit})
            assert "limit" in answer.error(400, "bad_data")

    on_server(test)


# ---------------------------------------------------------------------- who is let in

EXPOSED = HttpSettings(listen=HostPort("0.0.0.0", 0), allowed_hosts=("Metrics.example.com",))

# (settings, Host header, let in)
HOSTS = [
    (LOOPBACK, "localhost", True),
    (LOOPBACK, "LOCALHOST:8127", True),
    (LOOPBACK, "127.0.0.1:8127", True),
    (LOOPBACK, "127.9.9.9", True),
    (LOOPBACK, "[::1]:8127", True),
    (LOOPBACK, "evil.example", False),
    (LOOPBACK, "localhost.evil.example:8127", False),
    (LOOPBACK, "127.0.0.1.evil.example", False),
    (LOOPBACK, "192.0.2.7:8127", False),
    (LOOPBACK, "metrics.example.com", False),
    (LOOPBACK, "", False),
    (EXPOSED, "metrics.example.com:443", True),
    (EXPOSED, "192.0.2.7:8127", True),
    (EXPOSED, "evil.example", False),
    (HttpSettings(listen=HostPort("192.0.2.7", 0)), "192.0.2.7:8127", True),
    (HttpSettings(listen=HostPort("192.0.2.7", 0)), "192.0.2.8:8127", False),
]


@pytest.mark.parametrize(("settings", "host", "let_in"), HOSTS)
def test_a_host_header_that_is_not_ours_is_forbidden(settings: HttpSettings, host: str, let_in: bool) -> None:
    """DNS rebinding: a page's own name that means 127.0.0.1 reads nothing, not even /metrics."""

    async def test(server: Server) -> None:
        for path in ("/metrics", "/-/healthy", "/api/v1/status", "/no/such/path"):
            answer = await server.ask(path, headers={"Host": host})
            if let_in:
                assert answer.status == (404 if "no" in path else 200)
            else:
                assert "allowed_hosts" in answer.error(403, "forbidden")

    on_server(test, settings)


def test_a_request_needs_one_host_header() -> None:
    """None (HTTP/1.0) and two are forbidden: which one a proxy before us looked at cannot be known."""

    async def test(server: Server) -> None:
        for request in (
            b"GET /metrics HTTP/1.0\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert answer.split(b" ")[1] in (b"400", b"403"), answer
            assert b"collector_series" not in answer

    on_server(test)


# (method, headers, status)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ORIGINS = [
    ("POST", FORM, 200),
    ("POST", {**FORM, "Origin": "http://localhost:8127"}, 200),
    ("POST", {**FORM, "Origin": "https://metrics.example.com"}, 200),
    ("POST", {**FORM, "Origin": "http://localhost:3000"}, 403),
    ("POST", {**FORM, "Origin": "https://evil.example"}, 403),
    ("POST", {**FORM, "Origin": "null"}, 403),
    ("POST", {**FORM, "Origin": "http://[broken"}, 403),
    ("DELETE", {"Origin": "https://evil.example"}, 403),
    ("POST", {"Content-Type": "text/plain"}, 403),
    ("POST", {"Content-Type": "application/json"}, 403),
    ("POST", {"Content-Type": "multipart/form-data; boundary=x"}, 403),
    ("GET", {"Origin": "https://evil.example"}, 200),
]


@pytest.mark.parametrize(("method", "headers", "status"), ORIGINS)
def test_a_page_of_another_site_can_send_nothing(method: str, headers: dict[str, str], status: int) -> None:
    """A foreign Origin or another content type is forbidden; a read is answered, but no page may see it."""

    async def test(server: Server) -> None:
        server.reader.add(Kind.COUNTER, "a", {-10: 1})
        options: dict[str, Any] = {"data": b"query=a"} if method == "POST" else {"params": {"query": "a"}}
        answer = await server.ask(
            "/api/v1/query", method, headers={"Host": "localhost:8127", **headers}, **options
        )
        assert answer.status == status, answer.text
        if status == 403:
            answer.error(403, "forbidden")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    on_server(test, HttpSettings(listen=HostPort("127.0.0.1", 0), allowed_hosts=("metrics.example.com",)))


def test_a_silent_client_does_not_hold_the_server() -> None:
    """A connection that sends half a request costs nobody else an answer."""

    async def test(server: Server) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(b"GET /metr")
            assert (await server.ask("/-/healthy")).status == 200

    on_server(test)
