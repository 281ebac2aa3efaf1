"""`python -m benchmarks.load udp://127.0.0.1:8125`: load for any StatsD server, and what became of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Final

from benchmarks import process, progress
from benchmarks.counters import counter
from benchmarks.errors import BenchmarkError
from benchmarks.measuring import Result, measure
from benchmarks.payload import DATAGRAM, LARGEST, MIXED, MOST_SERIES, MOST_TAGS, Load
from benchmarks.sending import MOST_CONNECTIONS, MOST_LINES, MOST_SECONDS, Packets, Sending
from benchmarks.target import Target

_EPILOG: Final = """\
--counter says how to learn what has arrived: collector=http://127.0.0.1:8127 reads our own counters,
etsy=127.0.0.1:8126 those of etsy's statsd at its admin port, netdata=http://127.0.0.1:19999 netdata's;
"kernel" takes what the kernel did not drop at the server's UDP socket, "none" asks nobody. "auto" is
"kernel" for a UDP server of this machine, else "none".

Exit code 0 when the run was made, 1 when it could not be, 2 for a wrong command line.
"""
_SIZES: Final = {"line": 1, "1432": DATAGRAM, "8k": 8192}


def _mix(text: str) -> tuple[int, ...]:
    shares = tuple(int(part) for part in text.split(","))
    if len(shares) != len(MIXED) or min(shares) < 0 or sum(shares) != 100:
        raise ValueError
    return shares


def _size(text: str) -> int:
    size = _SIZES.get(text.lower()) or int(text)
    if not 1 <= size <= LARGEST:
        raise ValueError
    return size


_mix.__name__, _size.__name__ = "mix", "size"  # argparse names them in its errors


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Sends StatsD lines to a server and tells what became of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("target", help="udp://HOST:PORT, tcp://HOST:PORT, unixgram:///PATH or unixstream:///PATH")
    add(
        "--size",
        type=_size,
        default="1432",
        help='a packet: "line" (one each), 1432, 8k or a number of bytes',
    )
    add("--rate", type=float, default=0.0, help="lines a second; as fast as possible if left out")
    add("--seconds", type=float, default=10.0, help=f"how long, at most {MOST_SECONDS:.0f}; 10 if left out")
    add("--lines", type=int, default=0, help="stop at so many lines, if that comes first")
    add("--series", type=int, default=1000, help="distinct series; 1000 if left out")
    add("--mix", type=_mix, default=MIXED, help="counters,timers,gauges,sets in per cent; 60,20,10,10")
    add("--tags", type=int, default=0, help=f"DogStatsD tags of each line, 0 to {MOST_TAGS}")
    add("--seed", type=int, default=42, help="of the lines: the same seed makes the same bytes")
    add("--connections", type=int, default=1, help="sockets, used in turn")
    add("--no-segments", action="store_true", help="one system call's packet is one packet: as clients send")
    add("--counter", default="auto", help="collector=URL, etsy=HOST:PORT, netdata=URL, kernel, none or auto")
    add("--pid", type=int, help="the server's process; found by its socket if it runs here")
    add("--json", action="store_true", help="print JSON")
    add("--yes-send-there", action="store_true", help="allow a target that is not this machine")
    return made


def _check(commands: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Bounds; each is a usage error that names its option."""
    bounds = {
        "rate": (0, 1e9),
        "seconds": (0.1, MOST_SECONDS),
        "lines": (0, MOST_LINES),
        "series": (1, MOST_SERIES),
        "tags": (0, MOST_TAGS),
        "connections": (1, MOST_CONNECTIONS),
    }
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            commands.error(f"--{name}: from {low} to {high:,.0f}")


def run(options: argparse.Namespace) -> Result:
    """Makes the run that the options describe; BenchmarkError when it cannot be made."""
    target = Target.parse(options.target)
    if not target.local and not options.yes_send_there:
        raise BenchmarkError(
            f"{target} is not this machine, and such a load can bring a network down",
            "if it is yours and ready for it, say so: --yes-send-there",
        )
    count = counter(options.counter, target)
    pid = options.pid
    if pid is None and target.local:
        pid = process.owner(target)
    elif pid is not None:
        _ = process.cpu_seconds(pid)
    how = Sending(
        options.seconds, options.rate, options.lines, options.connections, segments=not options.no_segments
    )
    packets = Packets(
        Load(options.series, options.mix, options.tags, options.size, options.seed), stream=target.stream
    )
    try:
        return measure(packets, target, how, count, pid, progress=progress.bar(options.seconds))
    finally:
        progress.clear()
        packets.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    commands = parser()
    options = commands.parse_args(arguments)
    _check(commands, options)
    try:
        result = run(options)
    except BenchmarkError as error:
        print(f"{error.problem}\n{error.remedy}", file=sys.stderr)
        return 1
    except ProcessLookupError as error:
        print(f"{error}\ngive --pid of a process that runs on this machine", file=sys.stderr)
        return 1
    if options.json:
        load = {name: getattr(options, name) for name in ("size", "series", "mix", "tags", "seed", "rate")}
        print(json.dumps({"load": load, **result.as_json()}, indent=2))
    else:
        print("\n".join(_told(result)))
    return 0


def _told(result: Result) -> list[str]:
    """The result for people; what is not known is left out, or said to be unknown."""
    sent, got = result.sent, result.got
    told = [
        f"sent      {sent.lines:>14,} lines in {sent.packets:,} packets, {sent.seconds:.2f} s:"
        f" {_millions(sent.lines / sent.seconds)} lines/s, {_millions(sent.packets / sent.seconds)} packets/s"
    ]
    if result.received_lines is None or result.lost_lines is None:
        told.append("received         unknown: --counter names ways to ask the server")
    else:
        about = " (reckoned from packets)" if result.estimated else ""
        told.append(f"received  {result.received_lines:>14,} lines, by {result.counter}{about}")
        told.append(f"lost      {result.lost_lines:>14,} lines, {result.lost_lines / max(1, sent.lines):.2%}")
    if got.drops:
        told.append(f"          {got.drops:>14,} packets dropped by the kernel: the server's queue was full")
    if got.refused:
        told.append(f"refused   {got.refused:>14,} lines, by the server")
    if not result.settled:
        told.append("          the server was not done yet: the figures above are too small")
    if result.cpu_seconds is None:
        told.append("server           unknown: give --pid if it runs on this machine")
        return told
    told.append(
        f"server    {result.server} ({result.pid}): {result.cpu_seconds:.2f} s of CPU,"
        f" {(result.resident_bytes or 0) / 2**20:.0f} MiB"
    )
    for number, unit in (
        (result.lines_per_cpu_second, "lines per CPU-second"),
        (result.packets_per_cpu_second, "packets per CPU-second"),
        (result.packets_per_second, "packets/s received"),
    ):
        if number is not None:
            told.append(f"          {_millions(number):>14} {unit}")
    return told


def _millions(number: float) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
