"""A minute of what `make chaos` does for longer: breaking connections, killed processes, and an exact
comparison.
"""

from __future__ import annotations

from pathlib import Path

from under_faults import AOF, NOTHING_SAVED, Rig, collector_killed, progress, rig, server_killed


def nothing_differs(one: Rig) -> None:
    """Every series of the store is what was sent, and nothing was counted as lost."""
    one.settle()
    print(progress(one), dict(one.proxy.faults))
    assert one.differences() == []


def test_a_server_that_is_killed_and_connections_that_break_change_nothing(tmp_path: Path) -> None:
    """Ten million lines in 2,000 series, 20 `kill -9` of the server and a hundred broken connections: every
    counter, gauge, timer's count and set is what was sent."""
    with rig(tmp_path, *AOF, spool="on_outage", seed=6) as one:
        server_killed(one, kills=20, blocks=15, pause=0.5, faults=5, tell=print)
        nothing_differs(one)
        assert one.truth.lines >= 10_000_000
        assert one.truth.series >= 2_000
        assert one.server.kills >= 20
        assert sum(one.proxy.faults.values()) >= 100


def test_a_server_that_comes_back_with_an_older_copy_is_given_the_rest(tmp_path: Path) -> None:
    """What it had confirmed since that copy is repeated: nothing is lost, nothing counts twice."""
    with rig(tmp_path, *NOTHING_SAVED, spool="on_outage", seed=7) as one:
        server_killed(one, kills=3, blocks=2, pause=0.2, faults=3, tell=print, saves=True)
        nothing_differs(one)
        assert one.server.kills >= 3
        one.truth.counters["chaos.counter0000"] += 1
        one.truth.timers["chaos.timer000"] -= 1
        one.truth.sets["chaos.set000"].add("nobody")
        assert len(one.differences()) == 3, "the comparison sees the smallest difference"


def test_a_collector_that_is_killed_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    """`spool: always`: killed when a flush has been reported, with the store there, away, or not heard."""
    with rig(tmp_path, *AOF, spool="always", seed=8) as one:
        collector_killed(one, kills=5, blocks=4, tell=print)
        nothing_differs(one)
        assert one.kills == 5
