"""`python -m benchmarks.compare`: our engines beside a bare C loop and other servers, into RESULTS.md."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

from benchmarks import progress
from benchmarks.contestants import Contestant, Workload, everyone
from benchmarks.errors import BenchmarkError
from benchmarks.native import program
from benchmarks.report import as_json, markdown
from benchmarks.rounds import compare
from benchmarks.sending import MOST_SECONDS, Sending
from benchmarks.workloads import WORKLOADS

T = TypeVar("T", Contestant, Workload)

_RESULTS: Final = Path(__file__).parent / "RESULTS.md"
_MOST_ROUNDS: Final = 50


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="Runs all servers in turn under the same load, several times.",
        epilog=f"Servers: {'; '.join(one.name for one in everyone())}. "
        f"Workloads: {'; '.join(one.name for one in WORKLOADS)}.",
    )
    add = made.add_argument
    add("--rounds", type=int, default=3, help="runs of each server in each workload; 3 if left out")
    add("--seconds", type=float, default=10.0, help="of a run; 10, so that one flush falls into it")
    add("--rate", type=float, default=0.0, help="lines a second; as fast as possible if left out")
    add("--server", action="append", default=[], help="only those whose name has this in it; repeatable")
    add("--workload", action="append", default=[], help="only those whose name has this in it; repeatable")
    add("--output", type=Path, default=_RESULTS, help='where the tables go; "-" is standard output')
    add("--json", type=Path, help="where every run goes, as JSON")
    return made


def _chosen(everything: Sequence[T], wanted: Sequence[str]) -> list[T]:
    """Those that were asked for, by name or by a part of it, or all."""
    names = {one.name for one in everything}

    def fits(name: str, word: str) -> bool:
        return name == word if word in names else word.lower() in name.lower()

    return [one for one in everything if not wanted or any(fits(one.name, word) for word in wanted)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    commands = parser()
    options = commands.parse_args(given)
    if not 1 <= options.rounds <= _MOST_ROUNDS or not 0.1 <= options.seconds <= MOST_SECONDS:
        commands.error(f"--rounds: 1 to {_MOST_ROUNDS}; --seconds: 0.1 to {MOST_SECONDS:.0f}")
    first, *others = everyone()
    servers = [first, *_chosen(others, options.server)]  # the yardstick is always measured
    workloads = _chosen(WORKLOADS, options.workload)
    try:
        program("sender")  # before anything is started: without it nothing can be measured
    except BenchmarkError as error:
        print(f"{error.problem}\n{error.remedy}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
    how = Sending(seconds=options.seconds, rate=options.rate)
    tables = compare(servers, workloads, how, options.rounds, _say)
    progress.clear()
    command = _command(options)
    page = markdown(tables, servers, how, options.rounds, command, time.strftime("%Y-%m-%d"))
    if str(options.output) == "-":
        print(page)
    else:
        options.output.write_text(page)
    if options.json:
        options.json.write_text(json.dumps(as_json(tables), indent=1) + "\n")
    return 0


def _command(options: argparse.Namespace) -> str:
    """What makes the same tables again; where they went is this machine's matter."""
    words = ["python", "-m", "benchmarks.compare", "--rounds", str(options.rounds)]
    words += ["--seconds", f"{options.seconds:g}", *(["--rate", f"{options.rate:g}"] if options.rate else [])]
    words += [word for name in options.server for word in ("--server", name)]
    return shlex.join([*words, *(word for name in options.workload for word in ("--workload", name))])


def _say(text: str) -> None:
    """What is being done, for who watches: a line that is overwritten on a terminal."""
    start, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
