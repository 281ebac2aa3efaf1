"""The words: series and their keys, labels, the limits of integers."""

from __future__ import annotations

import pytest

from collector.model import Kind, Series, clamp_integer


@pytest.mark.parametrize(
    ("kind", "name", "tags", "key"),
    [
        (Kind.COUNTER, "hits", (), "chits"),
        (Kind.TIMER, "api.latency", ("route:/pay", "env:prod"), "tapi.latency|#env:prod,route:/pay"),
        (Kind.GAUGE, "a", ("x", "x", "b:1"), "ga|#b:1,x"),
        (Kind.SET, "föö", ("k:v:w",), "sföö|#k:v:w"),
    ],
)
def test_a_key_is_canonical_and_reads_back(kind: Kind, name: str, tags: tuple[str, ...], key: str) -> None:
    """Tags are sorted and without duplicates, so one series has one key; the kind stands in front."""
    series = Series(kind, name, tags)
    assert series.key == key
    again = Series.from_key(key)
    assert (again.kind, again.name, again.tags) == (kind, name, tuple(sorted(set(tags))))
    assert again == series
    assert hash(again) == hash(series)


def test_kinds_and_tags_keep_series_apart() -> None:
    """A counter and a gauge of one name are two series, and so is each set of tags."""
    assert len({Series(kind, "a", tags) for kind in Kind for tags in ((), ("b",), ("b:1",))}) == 12
    assert Series(Kind.COUNTER, "a") != "ca"


def test_labels_join_the_values_of_one_tag() -> None:
    """DogStatsD's tags are a set and may repeat a key; a label may not."""
    series = Series(Kind.COUNTER, "a", ["env:b", "env:a", "flag", "url:http://x:80"])
    assert series.labels() == {"env": "a,b", "flag": "", "url": "http://x:80"}


@pytest.mark.parametrize(
    ("value", "clamped"),
    [
        (2**63 - 1, 2**63 - 1),
        (-(2**63) + 1, -(2**63) + 1),
        (2**63, 2.0**63),
        (-(2**63), -(2.0**63)),
        (10**30, 1e30),
        (0.5, 0.5),
    ],
)
def test_integers_beyond_63_bits_become_floats(value: float, clamped: float) -> None:
    """No sign flip, and integers as long as the store can add to them."""
    assert clamp_integer(value) == clamped
    assert type(clamp_integer(value)) is type(clamped)
