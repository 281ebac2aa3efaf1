"""Our own counters as a page for Prometheus (text format 0.0.4).

The parts count in plain attributes; they are read when the page is asked for. Every name is listed in
`docs/metrics.md`, which marks those that mean DATA LOSS.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from collector import __version__
from collector.engine import Engine
from collector.listeners import Listener
from collector.listeners.senders import DROPS
from collector.listeners.streams import CLOSED, REFUSED, StreamListener
from collector.statsd.refusal import ODD, REASONS
from collector.store.compaction import Compactor, Counts
from collector.store.memory import MemoryGuard
from collector.store.writer import Writer

L = TypeVar("L", bound=Listener)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Reasons of collector_lost_total; each is there from the start, so that an alert on it can be tested.
LOSSES: Final = {
    "backlog_full": "points dropped, oldest first, because the store was away for too long",
    "store_refused": "operations that the store refused: a key of another type, say",
    "store_forgot": "batches that the store had confirmed and lost, older than what is kept to repeat",
    "backlog_expired": "points dropped because they had waited for too long",
    "spool_damaged": "points of batches that could not be read back from the disk",
    "earlier_start": "batches of an earlier start that are neither on disk nor in the store",
    "stopped": "points that at a stop were neither confirmed by the store nor taken by the disk",
    "shed_samples": "raw samples not kept because the store was nearly full; they are counted and sketched",
    "shed_sketches": "sketches of minutes not made because the store was nearly full",
}
LIMITS: Final = (
    "series",
    "series_per_metric",
    "tags",
    "heads",
    "set_members",
    "samples",
    "events",
    "senders",
    "memory",
)


@dataclass(slots=True)
class FlushStats:
    """What flushes have cost so far; times in seconds."""

    count: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    last_points: int = 0
    last_window_end: int = 0
    loop_lag: float = 0.0
    loop_lag_max: float = 0.0

    def add(self, *, seconds: float, points: int, window_end: int) -> None:
        """Notes one flush: from its start until the store has confirmed it."""
        self.count += 1
        self.seconds += seconds
        self.last_seconds = seconds
        self.last_points = points
        self.last_window_end = window_end

    def lag(self, seconds: float) -> None:
        """Notes how late a timer came: as long as something held the event loop."""
        self.loop_lag = seconds
        self.loop_lag_max = max(self.loop_lag_max, seconds)


class Source(Protocol):
    """What the page is made from: the daemon."""

    engine: Engine
    listeners: list[Listener]
    writer: Writer
    flushes: FlushStats
    compactor: Compactor | None
    memory: MemoryGuard
    started: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its samples are (labels, value), those of a summary (suffix, value)."""

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[Mapping[str, str], float]] = ()
    summary: Iterable[tuple[str, float]] = ()


def render(source: Source) -> str:
    """The page."""
    lines: list[str] = []
    for metric in collect(source):
        lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}")
        for labels, value in metric.samples:
            text = ",".join(f'{name}="{_escaped(found)}"' for name, found in labels.items())
            lines.append(
                f"{metric.name}{{{text}}} {_number(value)}" if text else f"{metric.name} {_number(value)}"
            )
        lines += [f"{metric.name}{suffix} {_number(value)}" for suffix, value in metric.summary]
    return "\n".join(lines) + "\n"


def collect(source: Source) -> Iterator[Metric]:
    """All metrics, in the order of the page."""
    yield from _ingest(source)
    yield from _connections(source)
    yield from _engine(source.engine)
    yield from _store(source)
    yield from _process(source)


def _summed(found: Iterable[tuple[dict[str, str], float]]) -> list[tuple[Mapping[str, str], float]]:
    """One sample of each set of labels, for a sample is there once."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, value in found:
        key = tuple(labels.items())
        sums[key] = sums.get(key, 0) + value
    return [(dict(key), total) for key, total in sums.items()]


def _by_listener(listeners: Iterable[L], read: Callable[[L], float]) -> list[tuple[Mapping[str, str], float]]:
    """One number of each listener; those of one name count together, for a label is there once."""
    return _summed(({"listener": one.name}, read(one)) for one in listeners)


def _by_reason(
    listeners: Iterable[L], reasons: Iterable[str], read: Callable[[L], Mapping[str, int]]
) -> list[tuple[Mapping[str, str], float]]:
    """One number of each listener and reason, each reason there from the start."""
    return _summed(
        ({"listener": one.name, "reason": reason}, read(one).get(reason, 0))
        for one in listeners
        for reason in reasons
    )


def _by_sender(listeners: Iterable[Listener]) -> list[tuple[Mapping[str, str], float]]:
    """Dropped lines of each listener, by reason and by where their senders are."""
    return _summed(
        ({"listener": one.name, "reason": reason, "sender": kind}, lines[reason, kind])
        for one in listeners
        for lines in (one.drops().lines,)
        for reason in DROPS
        for kind in one.senders.kinds
    )


def _ingest(source: Source) -> Iterator[Metric]:
    yield Metric(
        "collector_lines_total",
        "counter",
        "Lines received.",
        _by_listener(source.listeners, lambda one: one.lines),
    )
    yield Metric(
        "collector_packets_total",
        "counter",
        "Datagrams or reads received.",
        _by_listener(source.listeners, lambda one: one.packets),
    )
    yield Metric(
        "collector_bytes_total",
        "counter",
        "Bytes received.",
        _by_listener(source.listeners, lambda one: one.bytes),
    )
    yield Metric(
        "collector_kernel_drops_total",
        "counter",
        "Datagrams that the kernel dropped because the receive buffer was full. DATA LOSS",
        _by_listener(source.listeners, lambda one: one.kernel_drops),
    )
    yield Metric(
        "collector_lines_dropped_total",
        "counter",
        "Lines dropped because of who sent them. DATA LOSS",
        _by_sender(source.listeners),
    )


def _connections(source: Source) -> Iterator[Metric]:
    streams = [one for one in source.listeners if isinstance(one, StreamListener)]
    yield Metric(
        "collector_connections",
        "gauge",
        "Open connections.",
        _by_listener(streams, lambda one: len(one.connections)),
    )
    yield Metric(
        "collector_connections_total",
        "counter",
        "Connections that came, the refused ones too.",
        _by_listener(streams, lambda one: one.connections_total),
    )
    yield Metric(
        "collector_connections_refused_total",
        "counter",
        "Connections that were not let in. DATA LOSS",
        _by_reason(streams, REFUSED, lambda one: one.refused_connections),
    )
    yield Metric(
        "collector_connections_closed_total",
        "counter",
        "Connections that the collector ended.",
        _by_reason(streams, CLOSED, lambda one: one.closed_connections),
    )


def _engine(engine: Engine) -> Iterator[Metric]:
    yield Metric(
        "collector_lines_rejected_total",
        "counter",
        "Lines, or bits of lines, refused: see /api/v1/rejected. DATA LOSS",
        [({"reason": reason}, engine.rejected[reason]) for reason in REASONS],
    )
    yield Metric(
        "collector_lines_odd_total",
        "counter",
        "Strange parts of lines; nothing was lost.",
        [({"reason": reason}, engine.odd[reason]) for reason in ODD],
    )
    yield Metric(
        "collector_limit_hits_total",
        "counter",
        "Times that a limit of the configuration was hit.",
        [({"limit": limit}, engine.limit_hits[limit]) for limit in LIMITS],
    )
    yield Metric("collector_series", "gauge", "Series known now.", [({}, engine.series)])


def _store(source: Source) -> Iterator[Metric]:
    flushes, writer = source.flushes, source.writer
    yield Metric(
        "collector_flush_seconds",
        "summary",
        "Seconds that flushes took, confirmation by the store included.",
        summary=[("_sum", flushes.seconds), ("_count", flushes.count)],
    )
    yield Metric(
        "collector_last_flush_seconds",
        "gauge",
        "Seconds that the last flush took.",
        [({}, flushes.last_seconds)],
    )
    yield Metric("collector_flush_points_total", "counter", "Points written.", [({}, writer.points)])
    yield Metric(
        "collector_last_flush_timestamp_seconds",
        "gauge",
        "End of the last window that was flushed.",
        [({}, flushes.last_window_end)],
    )
    yield Metric(
        "collector_store_up",
        "gauge",
        "Whether the store takes what is sent.",
        [({}, float(writer.sender.up))],
    )
    yield Metric(
        "collector_store_batches_total",
        "counter",
        "Batches confirmed: applied, or found to be there already.",
        [({"result": "applied"}, writer.outbox.applied), ({"result": "duplicate"}, writer.outbox.duplicates)],
    )
    yield Metric(
        "collector_store_retries_total", "counter", "Times the store was lost.", [({}, writer.sender.retries)]
    )
    yield Metric(
        "collector_backlog_batches",
        "gauge",
        "Batches not confirmed yet.",
        [({}, writer.outbox.pending_batches)],
    )
    yield Metric(
        "collector_backlog_bytes", "gauge", "Bytes not confirmed yet.", [({}, writer.outbox.pending_bytes)]
    )
    yield Metric(
        "collector_backlog_disk_batches",
        "gauge",
        "Batches of the backlog that are on disk only.",
        [({}, writer.outbox.stored.batches)],
    )
    yield Metric(
        "collector_backlog_disk_bytes",
        "gauge",
        "Bytes that they take there.",
        [({}, writer.outbox.stored.bytes)],
    )
    yield Metric(
        "collector_backlog_disk_errors_total",
        "counter",
        "Times that the disk refused the backlog.",
        [({}, writer.outbox.disk_errors)],
    )
    yield Metric(
        "collector_store_kept_bytes",
        "gauge",
        "Bytes of confirmed batches held in memory, to be repeated to a store that loses them.",
        [({}, writer.outbox.kept.bytes)],
    )
    yield Metric(
        "collector_lost_total",
        "counter",
        "Points, operations or batches that never reached the store. DATA LOSS",
        [({"reason": reason}, writer.outbox.lost[reason]) for reason in LOSSES],
    )
    yield from _retention(source)


def _retention(source: Source) -> Iterator[Metric]:
    counts = source.compactor.counts if source.compactor else Counts()
    yield Metric(
        "collector_store_memory_ratio",
        "gauge",
        "How much of its maxmemory the server uses; 0 without a limit.",
        [({}, source.memory.ratio)],
    )
    yield Metric(
        "collector_shedding",
        "gauge",
        "Whether raw samples and minute sketches are left out: the store is nearly full. DATA LOSS",
        [({}, float(source.memory.shedding))],
    )
    yield Metric(
        "collector_rolled_up_chunks_total",
        "counter",
        "Chunks made into coarser slots, those again that a late sample had entered.",
        [({}, counts.rolled)],
    )
    yield Metric(
        "collector_swept_series_total",
        "counter",
        "Series removed from the registry, unseen for longer than they are kept.",
        [({}, counts.swept)],
    )


def _process(source: Source) -> Iterator[Metric]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    flushes = source.flushes
    yield Metric(
        "collector_loop_lag_seconds", "gauge", "How late the last timer came.", [({}, flushes.loop_lag)]
    )
    yield Metric(
        "collector_loop_lag_max_seconds",
        "gauge",
        "The longest hold of the event loop.",
        [({}, flushes.loop_lag_max)],
    )
    yield Metric("process_cpu_seconds_total", "counter", "CPU time.", [({}, usage.ru_utime + usage.ru_stime)])
    yield Metric("process_start_time_seconds", "gauge", "When it started.", [({}, source.started)])
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE")
        yield Metric("process_resident_memory_bytes", "gauge", "Memory in use.", [({}, resident)])
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # no need for a Path of each
        yield Metric("process_open_fds", "gauge", "Open file descriptors.", [({}, descriptors)])
    labels = {"version": __version__, "engine": source.engine.name, "python": platform.python_version()}
    yield Metric("collector_build_info", "gauge", "What runs.", [(labels, 1)])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
