"""Tables in words that another machine's reader can use: medians, ranges, ratios, and how they came about."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants import Contestant
from benchmarks.contestants.base import FLUSH
from benchmarks.measuring import Result
from benchmarks.rounds import Entry, Table, resident
from benchmarks.sending import Sending

_INTRO: Final = """\
# Results

Written by

    {command}

Figures drift with the machine, so compare within a table. The first line of each is a loop in C that only
receives and counts; "of it" is what a server reached of that loop's figure in the same round, the median of
the rounds. "M lines" are millions of lines that arrived, per second of the server process' own CPU time (user
and system, child processes not counted): median (lowest to highest). "Lost" is the share of the lines sent
that did not arrive. "~" marks lines reckoned from the packets that the kernel did not drop, since that server
counts no lines or shows its count late.

Each run starts the server anew, sends every series once, then sends for {seconds:g} s {speed}, and ends when
the server has worked off what had arrived. The servers take turns; rounds: {rounds}. All flush every
{flush} s: the collector to its embedded server, netdata to its memory, the others to a Graphite that throws
everything away. The bare loop does not flush.
"""


def machine() -> list[tuple[str, str]]:
    """What the figures depend on."""
    facts = [("processor", f"{_processor()}, {os.cpu_count()} of them")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    facts.append(("memory", f"{memory / 2**30:.1f} GiB"))
    facts.append(
        ("kernel", f"{platform.system()} {platform.release().partition('-')[0]}, {platform.machine()}")
    )
    facts.append(("Python", f"{platform.python_version()}, {platform.python_compiler()}"))
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def markdown(
    tables: Sequence[Table],
    contestants: Iterable[Contestant],
    how: Sending,
    rounds: int,
    command: str,
    day: str,
) -> str:
    """The page."""
    speed = f"at {how.rate:,.0f} lines/s" if how.rate else "as fast as it goes"
    parts = [_INTRO.format(command=command, seconds=how.seconds, speed=speed, rounds=rounds, flush=FLUSH)]
    facts = [("day", day), *machine()]
    facts += [(one.name, one.version()) for one in contestants if one.missing() is None]
    parts.append(
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]) + "\n"
    )
    parts += [_table(table) for table in tables]
    return "\n".join(parts)


def _table(table: Table) -> str:
    bare = table.entries[0]
    lines = [
        f"## {table.workload.name}",
        "",
        "| server | M lines per CPU-second | of it | k packets per CPU-second | lost | MiB |",
        "|---|---|---|---|---|---|",
        *(_row(entry, bare) for entry in table.entries if entry.results),
    ]
    if skipped := [entry for entry in table.entries if entry.skipped]:
        lines += ["", "Not measured:", "", *(f"- {entry.contestant}: {entry.skipped}" for entry in skipped)]
    return "\n".join(lines) + "\n"


def _row(entry: Entry, bare: Entry) -> str:
    about = "~" if any(one.estimated for one in entry.results) else ""
    late = "" if all(one.settled for one in entry.results) else " (not done in time)"
    lost = [share for one in entry.results if (share := _lost(one)) is not None]
    return (
        f"| {entry.contestant}{late}"
        f" | {about}{spread(entry.results, lambda one: one.lines_per_cpu_second, 1e6)}"
        f" | {ratio(entry, bare)}"
        f" | {spread(entry.results, lambda one: one.packets_per_cpu_second, 1e3)}"
        f" | {f'{statistics.median(lost):.0%}' if lost else '?'}"
        f" | {resident(entry) / 2**20:.0f} |"
    )


def _lost(result: Result) -> float | None:
    return None if result.lost_lines is None else result.lost_lines / max(1, result.sent.lines)


def spread(results: Sequence[Result], figure: Callable[[Result], float | None], unit: float) -> str:
    """`median (lowest to highest)`; "?" where it is not known."""
    values = [value / unit for one in results if (value := figure(one)) is not None]
    if not values:
        return "?"
    low, middle, high = (_digits(value) for value in (min(values), statistics.median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _digits(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(entry: Entry, bare: Entry) -> str:
    """The median of the ratios, round by round."""
    pairs = [
        mine / its
        for one, other in zip(entry.results, bare.results, strict=False)
        if (mine := one.lines_per_cpu_second) is not None and (its := other.lines_per_cpu_second)
    ]
    return f"{statistics.median(pairs):.3f}" if pairs else "?"


def as_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Every run, for programs."""
    return [
        {
            "workload": table.workload.name,
            "servers": [
                {
                    "name": entry.contestant,
                    "skipped": entry.skipped,
                    "notes": [dict(note) for note in entry.notes],
                    "runs": [one.as_json() for one in entry.results],
                }
                for entry in table.entries
            ],
        }
        for table in tables
    ]
