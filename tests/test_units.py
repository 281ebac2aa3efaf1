"""Durations and sizes as people write them, addresses, and how a log line reads."""

from __future__ import annotations

import pytest

from collector.addresses import Address
from collector.http_settings import HostPort
from collector.logfmt import Every, event
from collector.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("250ms", 0.25),
        ("1.5m", 90),
        ("2d", 172800),
        ("1w", 604800),
        ("0s", 0),
        ("5", 5),
        (5, 5),
        (0.5, 0.5),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    """A number with a unit, several of them, or bare seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "10x", "s", "-5s", "1h30", "ten", True, None, "inf", "nan", "1_0s"),
        *("1_000", "１０", "１０s", float("inf"), 10**400, "9" * 400, "9" * 400 + "s"),
    ],
)
def test_what_is_no_duration(text: object) -> None:
    """An error that shows how it is written."""
    with pytest.raises(ValueError, match=r"duration|finite"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(5400, "1h30m"), (0.25, "250ms"), (0, "0s"), (86461.5, "1d1m1s500ms")]
)
def test_durations_are_shown_short(seconds: float, text: str) -> None:
    """The largest units first."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "count"), [("16MiB", 2**24), ("512 kB", 512_000), ("1.5KiB", 1536), (7, 7), ("7", 7), ("7B", 7)]
)
def test_sizes(text: object, count: int) -> None:
    """Binary and decimal units, or bare bytes."""
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "MiB", "5mb", "5 apples", "-1MiB", True, None, "1_0", "１０", "9" * 400 + ".5"]
)
def test_what_is_no_size(text: object) -> None:
    """An error that lists the units."""
    with pytest.raises(ValueError, match=r"is not a size|finite"):
        parse_size(text)


@pytest.mark.parametrize("seconds", [0.0004, 1.2345, 1e-9, 1e15, 3661.001, 0.001])
def test_durations_of_any_fineness_read_back(seconds: float) -> None:
    """What no unit is fine enough for is shown as a bare number of seconds."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


def test_sizes_are_shown_short() -> None:
    """For people: three digits."""
    assert [format_size(n) for n in (0, 1023, 2**24, 1500)] == ["0B", "1023B", "16MiB", "1.46KiB"]


@pytest.mark.parametrize("text", ["udp://localhost:8125", "tcp://[::1]:1", "udp://0.0.0.0:0"])
def test_addresses_read_back(text: str) -> None:
    """What is shown is what is read."""
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["localhost:8125", "http://h:1", "udp://", "udp://h:x", "udp://h:70000", "udp://h/p", 5]
)
def test_what_is_no_address(text: object) -> None:
    """An error with the remedy."""
    with pytest.raises(ValueError, match=r"write it like|use one of|not an address"):
        Address.parse(text)


def test_http_addresses() -> None:
    """IPv6 in brackets; loopback is known as such."""
    assert str(HostPort.parse("[::1]:8127")) == "[::1]:8127"
    assert HostPort.parse("127.0.0.2:1").loopback
    assert not HostPort.parse("0.0.0.0:1").loopback
    for text in ("8127", "h", "::1:80", "h:99999"):
        with pytest.raises(ValueError, match="write it like"):
            HostPort.parse(text)


def test_a_log_line_is_one_line_whatever_a_client_sent() -> None:
    """Blanks, quotes and control characters are escaped."""
    text = event("x", plain="a:b", spaced="a b", evil='"\n\x1b[31m', empty="", seconds=1.23456)
    assert text == 'x plain=a:b spaced="a b" evil="\\"\\n\\u001b[31m" empty="" seconds=1.235'


def test_one_line_for_many() -> None:
    """The first is let through, the next ones are counted and told with the next that is."""
    every = Every(10)
    assert [every.admit(now) for now in (0, 1, 2, 11, 12, 30)] == [0, None, None, 2, None, 1]
