"""Lines out of datagrams and streams."""

from __future__ import annotations

import itertools
import struct

import pytest
from harness import frame
from hypothesis import given
from hypothesis import strategies as st

from collector.statsd.framing import AutoStream, LineStream, split_lines

LIMIT = 64
EVENT = b"_e{5,4}:ab\ncd|text"


def lines_of(*reads: bytes, longest: int = LIMIT) -> tuple[list[str], int]:
    """(lines that a stream gives, refused ones) for reads and the end of the connection."""
    stream = LineStream(longest)
    given = [stream.feed(read) for read in reads]
    given.append(stream.end())
    lines = [line for piece in given if piece for line in split_lines(piece, longest)]
    return [line for line in lines if line], stream.too_long


STREAMS = [
    ([b"fo", b"o:1|c\n"], ["foo:1|c"]),
    ([b"a:1|c"], ["a:1|c"]),  # no newline before the end
    ([b"a:1|c\nb:2", b"|c\nc:3|c"], ["a:1|c", "b:2|c", "c:3|c"]),
    ([b"x:+1|c\ny:1|c\n"], ["x:+1|c", "y:1|c"]),
    ([b"a:1|c\r", b"\nb:1|c\r\n"], ["a:1|c\r", "b:1|c\r"]),
    ([b"\n", b"\n\n", b"a:1|c\n"], ["a:1|c"]),
    ([b"", b"a:1|c\n", b""], ["a:1|c"]),
    (["f:é|s\n".encode()[:3], "f:é|s\n".encode()[3:]], ["f:Ã©|s"]),  # bytes kept, seen as latin-1
    ([EVENT[:12], EVENT[12:] + b"\n"], ["_e{5,4}:ab\ncd|text"]),
    ([EVENT[:4], EVENT[4:], b"|#t\nfoo:1|c\n"], ["_e{5,4}:ab\ncd|text|#t", "foo:1|c"]),
    ([b"x:1|c\n" + EVENT], ["x:1|c", "_e{5,4}:ab\ncd|text"]),
    ([b"_e{50,4}:ab|text\n", b"foo:1|c\n"], ["_e{50,4}:ab|text", "foo:1|c"]),  # wrong lengths
    ([b"_e{99,4}:ab|text\nfoo:1|c\n"], ["_e{99,4}:ab|text", "foo:1|c"]),  # longer than a line may be
    ([b"_e{2,18}:_e|see\n_e{5,4}: no\nxx\n"], ["_e{2,18}:_e|see\n_e{5,4}: no\nxx"]),  # an event in a text
]


@pytest.mark.parametrize(("reads", "lines"), STREAMS)
def test_streams(reads: list[bytes], lines: list[str]) -> None:
    """Reads are joined into lines, whole events included, and the last line needs no newline."""
    assert lines_of(*reads) == (lines, 0)


def test_whole_lines_are_given_at_once() -> None:
    """What is complete does not wait for what follows it."""
    stream = LineStream(LIMIT)
    assert stream.feed(b"x:+1|c\ny:1|c\nz:") == b"x:+1|c\ny:1|c"


def test_an_event_with_disproved_lengths_holds_nothing_back() -> None:
    """The lines behind it are given at once when the title cannot end where it says."""
    stream = LineStream(LIMIT)
    assert stream.feed(b"_e{9,40}:title|text\nfoo:1|c\n") == b"_e{9,40}:title|text\nfoo:1|c"


@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 1000])
def test_a_line_over_the_limit_is_dropped_and_the_stream_goes_on(size: int) -> None:
    """It counts once however long it is, and the next line is read again."""
    data = b"a:1|c\n" + b"x" * 300
    reads = [data[at : at + size] for at in range(0, len(data), size)]
    assert lines_of(*reads, b"y\nb:1|c\n") == (["a:1|c", "b:1|c"], 1)


def test_a_line_without_end_takes_no_memory() -> None:
    """Thirty-two megabytes without a newline hold a line's worth of bytes, and are one refusal."""
    stream = LineStream(LIMIT)
    for _ in range(512):
        assert stream.feed(b"x" * 65536) == b""
    assert stream.too_long == 1
    assert stream.end() == b""


def test_a_line_of_just_the_limit_is_kept() -> None:
    """The limit is the last length that is good."""
    line = b"f:" + b"1" * (LIMIT - 4) + b"|c"
    assert lines_of(line[:10], line[10:], b"\n") == ([line.decode()], 0)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a:1|c\nb:1|c", ["a:1|c", "b:1|c"]),
        (EVENT, ["_e{5,4}:ab\ncd|text"]),
        (b"a:1|c\n" + EVENT + b"|#t\n\nb:1|c\n", ["a:1|c", "_e{5,4}:ab\ncd|text|#t", "", "b:1|c"]),
        (EVENT + b"\n" + EVENT + b"\n", ["_e{5,4}:ab\ncd|text"] * 2),
        (EVENT + b"\r\nb:1|c", ["_e{5,4}:ab\ncd|text\r", "b:1|c"]),
        (b"_e{5,9}:ab\ncd|text\nb:1|c", ["_e{5,9}:ab", "cd|text", "b:1|c"]),
        (b"x_e{5,4}:ab\ncd|text", ["x_e{5,4}:ab", "cd|text"]),
    ],
)
def test_datagrams(data: bytes, lines: list[str]) -> None:
    """An event with raw newlines is one line if its lengths fit; else nothing behind it is lost."""
    assert split_lines(data, LIMIT) == lines


# ------------------------------------------------------------------ frames


def pieces_of(*reads: bytes) -> tuple[list[str], int, bool]:
    """(lines that a stream of either framing gives, refused ones, whether it is broken)."""
    stream = AutoStream(LIMIT)
    pieces = [piece for read in reads for piece in stream.feed(read)]
    if not stream.framed:
        pieces.append(stream.end())
    lines = [line for piece in pieces for line in split_lines(piece, LIMIT) if line]
    return lines, stream.too_long, stream.broken


@pytest.mark.parametrize(
    ("reads", "lines"),
    [
        ([frame(b"a:1|c"), frame(b"b:1|c\n")], ["a:1|c", "b:1|c"]),
        ([frame(b"a:1|c\nb:1|c") + frame(b"c:1|c")], ["a:1|c", "b:1|c", "c:1|c"]),
        ([frame(b"a:1|c")[:2], frame(b"a:1|c")[2:6], frame(b"a:1|c")[6:]], ["a:1|c"]),
        ([frame(b"a:1"), frame(b"|c")], ["a:1", "|c"]),
        ([frame(EVENT), frame(b"a:1|c")], ["_e{5,4}:ab\ncd|text", "a:1|c"]),
        ([frame(EVENT)[:14], frame(EVENT)[14:]], ["_e{5,4}:ab\ncd|text"]),
        ([b"a:1|c\n", b"b:1|c"], ["a:1|c", "b:1|c"]),
        ([b"a:", b"1|c\n"], ["a:1|c"]),
        ([b"\n\n", b"\na:1|c\n"], ["a:1|c"]),
        ([b"a:1"], ["a:1"]),  # less than a header: a line
    ],
)
def test_the_first_bytes_tell_the_framing(reads: list[bytes], lines: list[str]) -> None:
    """Newlines or lengths, recognised by connection; a frame is read as a datagram is."""
    assert pieces_of(*reads) == (lines, 0, False)


def test_a_length_of_sixteen_megabytes_breaks_the_stream() -> None:
    """No frame is so long: what follows cannot be told apart and is not read."""
    assert pieces_of(frame(b"a:1|c") + b"\x00\x00\x00\x01" + frame(b"b:1|c")) == (["a:1|c"], 0, True)


def test_a_large_frame_is_not_held() -> None:
    """Its lines are given as they come, so what a connection holds does not depend on the length it tells."""
    stream = AutoStream(LIMIT)
    given = stream.feed(struct.pack("<I", 10_000_000) + b"a:1|c\nb:1")
    assert given == [b"a:1|c"]
    assert stream.feed(b"|c\n" + b"l" * 5000) == [b"b:1|c"]
    assert stream.feed(b"l" * 5000) == []
    assert stream.too_long == 1


TRAFFIC = b"".join(map(frame, (b"a:1|c\nb:2|c", b"", EVENT, b"l" * 100 + b":1|c\nc:3|c", b"d:4|c\n")))


@given(cuts=st.lists(st.integers(0, len(TRAFFIC)), max_size=20).map(sorted))
def test_where_a_stream_of_frames_is_cut_does_not_matter(cuts: list[int]) -> None:
    """The lines within the limit and the number of the others are the same."""
    reads = [TRAFFIC[start:end] for start, end in itertools.pairwise([0, *cuts, len(TRAFFIC)])]
    lines, too_long, broken = pieces_of(*reads)
    whole = [line for line in lines if len(line) <= LIMIT]
    assert whole == ["a:1|c", "b:2|c", "_e{5,4}:ab\ncd|text", "c:3|c", "d:4|c"]
    assert too_long + len(lines) - len(whole) == 1
    assert not broken
