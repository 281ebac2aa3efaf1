"""The page of self-metrics: its format, its names, and what is counted where."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from collector.addresses import Address
from collector.engine import Engine, Limits, PureEngine
from collector.listeners import Listener, ListenerSettings, create
from collector.statsd.refusal import ODD, REASONS
from collector.store.compaction import Compactor
from collector.store.keys import KeySpace
from collector.store.memory import MemoryGuard
from collector.store.writer import Writer
from collector.telemetry import CONTENT_TYPE, LOSSES, FlushStats, render

DOC = Path(__file__).parent.parent / "docs" / "metrics.md"
PINNED = {
    "collector_lines_total": ("listener",),
    "collector_lines_rejected_total": ("reason",),
    "collector_kernel_drops_total": ("listener",),
    "collector_series": (),
    "collector_flush_seconds": (),
    "collector_backlog_batches": (),
    "collector_lost_total": ("reason",),
}
SAMPLE = re.compile(r'([a-z_:]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


def _engine() -> Engine:
    return PureEngine(time.time())


def _writer() -> Writer:
    return Writer(KeySpace("m", 10), max_bytes=2**20, samples=200, refresh=60)


@dataclass
class Parts:
    """What a daemon is to the page."""

    engine: Engine = field(default_factory=_engine)
    listeners: list[Listener] = field(default_factory=list)
    writer: Writer = field(default_factory=_writer)
    compactor: Compactor | None = None
    memory: MemoryGuard = field(default_factory=lambda: MemoryGuard(_writer()))
    flushes: FlushStats = field(default_factory=FlushStats)
    started: float = 1_700_000_000.0

    def listen(self, *urls: str) -> None:
        """Adds listeners, not opened yet."""
        for url in urls:
            settings = ListenerSettings(url=Address.parse(url))
            self.listeners.append(create(settings, self.engine, Limits(), time.time))


@dataclass
class Family:
    """One metric as read from the page: samples by (suffix, labels)."""

    kind: str
    help: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    @property
    def labels(self) -> set[str]:
        """The names of its labels."""
        return {name for _, labels in self.samples for name, _ in labels}


def read(page: str) -> dict[str, Family]:
    """The families of a page; an assertion fails where it is not format 0.0.4."""
    assert page.endswith("\n")
    families: dict[str, Family] = {}
    name = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            assert name not in families, "a family comes once"
            families[name] = Family("", text)
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split(" ")
            assert typed == name
            families[name].kind = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1].startswith(name), "samples stand below their family"
            key = (match[1][len(name) :], tuple(LABEL.findall(match[2] or "")))
            assert key not in families[name].samples, "a sample comes once"
            families[name].samples[key] = float(match[3])
    return families


def value(page: str, name: str, **labels: str) -> float:
    """One sample's value."""
    return read(page)[name].samples["", tuple(labels.items())]


def test_the_page_is_text_format_0_0_4() -> None:
    """Families with help and type, counters ending in _total, a summary with sum and count, a line end."""
    parts = Parts()
    parts.listen("udp://127.0.0.1:0", "tcp://127.0.0.1:0")
    families = read(render(parts))
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    for name, family in families.items():
        assert family.kind in ("counter", "gauge", "summary"), name
        assert (family.kind == "counter") == name.endswith("_total"), name
        assert family.help.strip(), name
        assert {suffix for suffix, _ in family.samples} == (
            {"_sum", "_count"} if family.kind == "summary" else {""}
        ), name


def test_pinned_names_never_change() -> None:
    """Users' alerts depend on these names and labels."""
    parts = Parts()
    parts.listen("udp://127.0.0.1:0")
    families = read(render(parts))
    for name, labels in PINNED.items():
        assert families[name].labels == set(labels), name


def test_every_reason_is_there_with_zero_from_the_start() -> None:
    """rate() misses the first event of a sample that appears with it."""
    families = read(render(Parts()))
    for name, reasons in (
        ("collector_lines_rejected_total", REASONS),
        ("collector_lines_odd_total", ODD),
        ("collector_lost_total", LOSSES),
    ):
        expected = {("", (("reason", reason),)): 0.0 for reason in reasons}
        assert families[name].samples == expected, name
    assert {"backlog_full", "store_refused", "stopped"} <= set(LOSSES)


def test_docs_list_every_metric_and_no_other() -> None:
    """docs/metrics.md and the page agree on names, types, labels and what means DATA LOSS."""
    parts = Parts()
    parts.listen("udp://127.0.0.1:0", "tcp://127.0.0.1:0")
    shown = {
        name: (family.kind, family.labels, "DATA LOSS" in family.help)
        for name, family in read(render(parts)).items()
    }
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (\w+) \| ([a-z` ]*)\| .*? \|( DATA LOSS)? \|$", DOC.read_text(), re.M
    )
    listed = {
        name: (kind, set(labels.replace("`", "").split()), bool(loss)) for name, kind, labels, loss in rows
    }
    assert listed == shown


def test_docs_list_every_reason_and_no_other() -> None:
    """Each reason of a refusal and of a loss has its row."""
    text = DOC.read_text()
    for name, reasons in (("collector_lost_total", LOSSES), ("collector_lines_rejected_total", REASONS)):
        section = text.split(f"## Reasons of `{name}`")[1].split("\n## ")[0]
        assert re.findall(r"^\| `([a-z0-9_]+)` \| \S", section, re.M) == list(reasons)


def test_counts_of_real_listeners_and_of_the_engine_are_shown() -> None:
    """Lines, datagrams, bytes, connections and refusals, by listener and by reason."""

    async def run() -> None:
        parts = Parts()
        parts.listen("udp://127.0.0.1:0", "tcp://127.0.0.1:0")
        for listener in parts.listeners:
            await listener.open()
        udp, tcp = (int(listener.addresses[0].rsplit(":", 1)[1]) for listener in parts.listeners)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"a:1|c\nbad\nb:1|g|#:x", ("127.0.0.1", udp))
        _, stream = await asyncio.open_connection("127.0.0.1", tcp)
        stream.write(b"a:1|c\n")
        await stream.drain()
        async with asyncio.timeout(10):
            while [listener.lines for listener in parts.listeners] != [3, 1]:
                await asyncio.sleep(0.01)
        page = render(parts)
        stream.close()
        for listener in parts.listeners:
            await listener.close()
        assert value(page, "collector_lines_total", listener="udp://127.0.0.1:0") == 3
        assert value(page, "collector_packets_total", listener="udp://127.0.0.1:0") == 1
        assert value(page, "collector_bytes_total", listener="udp://127.0.0.1:0") == 19
        assert value(page, "collector_kernel_drops_total", listener="udp://127.0.0.1:0") == 0
        assert value(page, "collector_connections", listener="tcp://127.0.0.1:0") == 1
        assert value(page, "collector_connections_total", listener="tcp://127.0.0.1:0") == 1
        assert value(page, "collector_lines_rejected_total", reason="no_value") == 1
        assert value(page, "collector_lines_odd_total", reason="bad_tag") == 1
        assert value(page, "collector_series") == 2

    uvloop.run(run())


def test_refusals_go_on_counting_over_flushes() -> None:
    """A self-metric is never taken down with the data of an interval: it is a number, and only grows."""
    parts = Parts()
    parts.listen("udp://127.0.0.1:0")
    now = time.time()
    for turn in range(1, 4):
        parts.engine.ingest(0, b"bad", "test", now)
        assert value(render(parts), "collector_lines_rejected_total", reason="no_value") == turn
        now += 30
        parts.engine.flush(now)


def test_every_limit_that_the_engine_counts_is_shown() -> None:
    """A hit of a limit on series shows under the limit's own name."""
    limits = Limits(series=1, series_per_metric=1, tags=1, set_members=2, events=1)
    parts = Parts(engine=PureEngine(time.time(), limits=limits))
    parts.listen("udp://127.0.0.1:0")
    lines = [b"s:1|s", b"s:2|s", b"s:3|s", b"other:1|c", b"t:1|c|#a:1,b:2", b"_sc|x|0", b"_sc|y|0"]
    parts.engine.ingest(0, b"\n".join(lines), "test", time.time())
    page = render(parts)
    hits = {limit: count for limit, count in parts.engine.limit_hits.items() if count}
    assert {"series", "tags", "set_members", "events"} <= set(hits)
    for limit, count in hits.items():
        assert value(page, "collector_limit_hits_total", limit=limit) == count


def test_flushes_and_losses_are_shown() -> None:
    """What the flush loop and the writer count arrives under its name."""
    parts = Parts()
    parts.flushes.add(seconds=0.5, points=10, window_end=1_700_000_010)
    parts.flushes.add(seconds=0.25, points=1, window_end=1_700_000_020)
    parts.flushes.lag(0.2)
    parts.flushes.lag(0.01)
    parts.writer.outbox.lost["backlog_full"] += 7
    parts.writer.outbox.duplicates += 2
    page = render(parts)
    assert read(page)["collector_flush_seconds"].samples == {("_sum", ()): 0.75, ("_count", ()): 2}
    assert value(page, "collector_last_flush_seconds") == 0.25
    assert value(page, "collector_last_flush_timestamp_seconds") == 1_700_000_020
    assert value(page, "collector_loop_lag_seconds") == 0.01
    assert value(page, "collector_loop_lag_max_seconds") == 0.2
    assert value(page, "collector_lost_total", reason="backlog_full") == 7
    assert value(page, "collector_store_batches_total", result="duplicate") == 2
    assert value(page, "collector_store_up") == 0
    assert value(page, "process_start_time_seconds") == 1_700_000_000


def test_labels_are_escaped_and_listeners_of_one_name_count_together() -> None:
    """Quotes, backslashes and line ends in a label never break the page; no sample comes twice."""
    parts = Parts()
    parts.listen("udp://127.0.0.1:0", "udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    for listener in parts.listeners:
        listener.count_lines(2)
    page = render(parts)
    assert value(page, "collector_lines_total", listener="udp://127.0.0.1:0") == 4
    assert value(page, "collector_connections", listener="tcp://127.0.0.1:0") == 0
    parts.listeners[0].url = 'a"b\\c\nd'
    assert value(render(parts), "collector_lines_total", listener='a\\"b\\\\c\\nd') == 2
