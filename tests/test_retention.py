"""Ladders, rules about them, and how a configuration says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.config import ConfigError, check, load_retention
from collector.model import Kind, Series
from collector.retention import Ladder, RetentionSettings, chain_fault
from collector.rules import Glob, KindWord, Retention, SeriesRule


@pytest.mark.parametrize(
    ("ladder", "message"),
    [
        ({}, "a ladder maps resolutions to lives"),
        ("10s: 6h", "write it like {10s: 6h, 1m: 48h}"),
        ({"10s": "5s"}, "10s: 5s is kept for less than one slot"),
        ({"1m": "48h", "10s": "6h"}, "write the finest first"),
        ({"10s": "6h", "1m": "6h"}, "1m: 6h is kept no longer than 10s: 6h"),
        ({"10s": "6h", "25s": "7h"}, "25s is no multiple of 10s: try 30s"),
        ({"10s": "6h", "1h": "90d"}, "1h is 360 times 10s, which does not divide 120: put 30s between them"),
        ({"0.5s": "6h"}, '"0.5s" is not whole seconds'),
        ({"soon": "6h"}, '"soon" is not a duration'),
    ],
)
def test_a_ladder_that_cannot_be_is_told_with_its_remedy(ladder: object, message: str) -> None:
    """Each coarser resolution is a multiple of the finer, made from one chunk of it, and kept longer."""
    with pytest.raises(ValueError) as caught:
        Ladder.parse(ladder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("finest", "ladder", "fitted"),
    [
        (10, {"10s": "6h", "1m": "48h"}, "10s:6h 1m:2d"),
        (1, {"10s": "6h", "1m": "48h"}, "1s:2m 10s:6h 1m:2d"),
        (30, {"10s": "6h", "1m": "48h"}, "30s:6h 1m:2d"),
        (60, {"10s": "6h", "1m": "48h"}, "1m:2d"),
        (60, {"10s": "6h"}, "1m:6h"),
        (4, {"10s": "6h", "1m": "48h"}, "4s:6h 1m:2d"),
        (10, {"1m": "5m"}, "10s:5m 1m:5m"),
    ],
)
def test_a_ladder_begins_with_what_is_written(finest: int, ladder: dict[str, str], fitted: str) -> None:
    """Rungs that are no multiple of the flush interval give their life to it; before a ladder that begins
    coarser it is kept for one chunk, until it is rolled up."""
    assert str(Ladder.parse(ladder).fitted(finest)) == fitted


@pytest.mark.parametrize("interval", [one for one in range(1, 61) if 60 % one == 0])
def test_every_flush_interval_goes_with_the_default_ladders(interval: int) -> None:
    """Whatever divides a minute."""
    retention = Retention(RetentionSettings(), interval)
    assert not any(retention.fault(kind) for kind in Kind)
    assert retention.chains[Kind.SET] == (60, 3600)


def test_a_chain_is_checked_as_a_whole() -> None:
    """Resolutions of several ladders go into one chain."""
    assert chain_fault([10, 60, 300, 3600]) == ""
    assert chain_fault([10, 60, 90]) == "90s is no multiple of 1m: try 2m"


def rule(match: str, **actions: object) -> SeriesRule:
    """A rule about a pattern."""
    return SeriesRule(match=Glob.parse(match), **actions)  # type: ignore[arg-type]


def test_the_first_rule_that_matches_and_has_the_action_decides() -> None:
    """By name and kind, one action at a time; tags are no part of the name, and dots are dots."""
    day = Ladder.parse({"10s": "1d"})
    week = Ladder.parse({"10s": "7d"})
    rules = [
        rule("api.slow?", samples=7),
        rule("api.*", type=KindWord.TIMER, retain=day),
        rule("a*", retain=week, samples=9),
    ]
    retention = Retention(RetentionSettings(), 10, rules)
    slow = Series(Kind.TIMER, "api.slow1", ["x:y"])
    assert (retention.ladder(slow), retention.samples(slow)) == (day, 7)
    assert retention.ladder(Series(Kind.COUNTER, "api.slow1")) == week
    other = Series(Kind.TIMER, "apixslow1")
    assert (retention.ladder(other), retention.samples(other)) == (week, 9)
    none = Series(Kind.GAUGE, "web")
    assert retention.ladder(none) == RetentionSettings().gauges
    assert retention.samples(Series(Kind.TIMER, "web")) is None
    assert retention.chains[Kind.GAUGE] == (10, 60, 3600)


def problems(directory: Path, config: str, **files: str) -> list[str]:
    """What is wrong with a configuration and its rule files."""
    for name, text in files.items():
        (directory / f"{name}.yaml").write_text(text)
    (directory / "c.yaml").write_text(config)
    try:
        check(directory / "c.yaml", {})
    except ConfigError as error:
        return [str(one).removeprefix(f"{directory}/") for one in error.problems]
    return []


@pytest.mark.parametrize(
    ("config", "rules", "expected"),
    [
        (
            "retention: {counters: {10s: 6h, 25s: 7h}}",
            "",
            "c.yaml:1:23: retention.counters: 25s is no multiple",
        ),
        (
            "retention: {counter: {10s: 6h}}",
            "",
            'c.yaml:1:13: unknown key "counter" (did you mean "counters"?)',
        ),
        (
            "flush_interval: 10s\nretention: {gauges: {1h: 9d}}",
            "",
            "c.yaml:2:21: retention.gauges with flush",
        ),
        ("rules: [none.yaml]", "", "c.yaml:1:9: rules[0]:"),
        ("rules: [r.yaml]", "series:\n  - match: a\n", "r.yaml:2:5: series[0] does nothing (give it retain"),
        (
            "rules: [r.yaml]",
            "series:\n  - {match: a, retian: {10s: 1h}}\n",
            'r.yaml:2:16: unknown key "retian"',
        ),
        ("rules: [r.yaml]", "series:\n  - {match: a, samples: 0}\n", "r.yaml:2:25: series[0].samples:"),
        (
            "rules: [r.yaml]",
            "series: [{match: a, retain: {10s: 1h, 1m: 1h}}]\n",
            "r.yaml:1:29: series[0].retain: 1m",
        ),
        ("rules: [r.yaml]", "series: [{retain: {10s: 1h}}]\n", "r.yaml:1:10: series[0].match is missing"),
        (
            "rules: [r.yaml]",
            "series: [{match: 'a*', retain: {90s: 1h}}]\n",
            "c.yaml:1:8: the rule for 'a*': its",
        ),
    ],
)
def test_a_fault_in_a_ladder_or_a_rule_is_told_with_its_place(
    tmp_path: Path, config: str, rules: str, expected: str
) -> None:
    """The file, the line, the column, the input and the remedy."""
    (found, *_) = problems(tmp_path, config, r=rules)
    assert found.startswith(expected), found


def test_rule_files_are_found_beside_the_configuration(tmp_path: Path) -> None:
    """Their rules decide in the order of the files."""
    first = "series: [{match: 'a*', retain: {10s: 1h, 1m: 1d}}]"
    second = "series: [{match: 'a*', retain: {10s: 2h}}, {match: 'b*', retain: {10s: 3h}}]"
    assert problems(tmp_path, "rules: [one.yaml, two.yaml]", one=first, two=second) == []
    settings, _ = check(tmp_path / "c.yaml", {})
    retention = load_retention(settings, {})
    assert str(retention.ladder(Series(Kind.COUNTER, "abc"))) == "10s:1h 1m:1d"
    assert str(retention.ladder(Series(Kind.COUNTER, "bcd"))) == "10s:3h"


def test_what_a_series_takes_is_told() -> None:
    """Dense, in the store, about: the default of a counter is some 50 kB."""
    retention = RetentionSettings()
    assert retention.counters.bytes(Kind.COUNTER) == pytest.approx(50_000, rel=0.1)
    assert retention.timers.bytes(Kind.TIMER) == pytest.approx(250_000, rel=0.1)
    assert retention.sets.bytes(Kind.SET) > 10**7
