"""`make chaos`: connections break and processes are killed under load, and every series is compared. Some ten
minutes.

    python tests/chaos.py [--seed N] [--kills N] [--server PATH] [server|copy|collector]...

    server      the server is killed, and comes back with its log
    copy        the server is killed, and comes back with a copy that is a moment old
    collector   the collector is killed, which writes ahead (`spool: always`); now and then the server too

The exit code is 1 if a series is not what was sent. With the same seed the same faults are drawn; when they
happen depends on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from under_faults import AOF, NOTHING_SAVED, Rig, collector_killed, progress, rig, server_killed

_SHOWN: Final = 50  # differences


def _say(started: float, part: str, text: str) -> None:
    print(f"{time.monotonic() - started:6.1f} s  {part}: {text}", flush=True)


PARTS: Final[dict[str, tuple[str, tuple[str, ...], Callable[..., None]]]] = {
    "server": ("on_outage", AOF, partial(server_killed, blocks=8, pause=1.0, faults=8)),
    "copy": ("on_outage", NOTHING_SAVED, partial(server_killed, blocks=8, pause=1.0, faults=4, saves=True)),
    "collector": ("always", AOF, partial(collector_killed, blocks=8)),
}


def run(part: str, *, kills: int, seed: int, program: Path | None) -> bool:
    """One part, with its figures; whether nothing differs."""
    spool, options, faults = PARTS[part]
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as directory,
        rig(Path(directory), *options, spool=spool, seed=seed, program=program) as one,
    ):
        faults(one, kills=kills, tell=partial(_say, started, part))
        one.settle()
        found = one.differences()
        _say(started, part, progress(one))
        _table(part, one, found)
    return not found


def _table(part: str, one: Rig, found: list[str]) -> None:
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(one.proxy.faults.items()))
    print(f"{part}: {faults}")
    print(f"{part}: {len(found)} of {one.truth.series} series differ")
    for line in found[:_SHOWN]:
        print(f"    {line}")


def main() -> int:
    """0 if nothing differs, 1 if something does."""
    parser = argparse.ArgumentParser(description="Faults under load, compared to the last increment.")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kills", type=int, default=60, help="of the server or the collector, in each part")
    parser.add_argument("--server", type=Path, help="another server to run than the embedded one")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all when none is named")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    good = [
        run(part, kills=given.kills, seed=given.seed, program=given.server) for part in given.parts or PARTS
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
