r"""Lines out of a datagram or a byte stream, without I/O.

A stream is cut into lines by newlines, or holds DogStatsD's frames; its first bytes tell which.

    61 3a 31 7c 63 0a ...                   a:1|c\n          newlines
    05 00 00 00 61 3a 31 7c 63 ...          (5) a:1|c         frames: length as 4 bytes, lowest first
             ^^
             a frame is shorter than 16 MiB, so its fourth byte is 0, which is in no line

By newlines:

    read 1   "a:1|c\nb:2"          -> "a:1|c"      keeps "b:2"
    read 2   "|c\nc:3|c"           -> "b:2|c"      keeps "c:3|c"
    end                            -> "c:3|c"      a last line needs no newline

A line longer than the limit is refused once, and what follows is skipped up to the next newline, where
the stream is in step again. A frame is read as a datagram is, but need not be held whole: its length is not
bounded by what may be held.

An event says how long it is and may hold raw newlines. It is one line where its lengths fit what is there;
else its lines are lines of their own. So a wrong length spoils no line behind it, and a stream gives the
same wherever it is cut into reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from collector.statsd.events import EVENT, event_end, may_hold_event

_HEADER: Final = 4  # bytes of a frame's length
_LONGEST_FRAME: Final = 2**24 - 1  # so that a header always ends in a zero byte
_LINE_OF_EVENT: Final = re.compile(rb"^" + re.escape(EVENT), re.MULTILINE)


def split_lines(data: bytes, longest: int) -> list[str]:
    """The lines of a datagram, as latin-1 views of their bytes; events of up to `longest` bytes are whole."""
    text = data.decode("latin-1")
    lines: list[str] = []
    done = 0
    for start, end in _events(data, longest):
        if start < done or end > len(data):
            continue
        if start > done:
            lines += text[done : start - 1].split("\n")
        newline = text.find("\n", end)
        stop = len(text) if newline < 0 else newline
        lines.append(text[start:stop])
        done = stop + 1
    if done < len(text):
        lines += text[done:].removesuffix("\n").split("\n")
    return lines


def _events(data: bytes, longest: int) -> Iterator[tuple[int, int]]:
    """(start, end by its own lengths) of each line that may be an event; the end may lie beyond the data."""
    for found in _LINE_OF_EVENT.finditer(data):
        end = event_end(data, found.start())
        if end is not None and end - found.start() <= longest:
            yield found.start(), end


class LineStream:
    """Joins the reads of one connection into whole lines. Holds at most `longest` bytes.

    `too_long` counts the refused lines; the caller takes and reports them.
    """

    __slots__ = ("_kept", "_longest", "_skipping", "too_long")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._kept = b""
        self._skipping = False
        self.too_long = 0

    def feed(self, data: bytes) -> bytes:
        """What is complete by now: whole lines without the last LF, or nothing."""
        if self._skipping:
            newline = data.find(b"\n")
            if newline < 0:
                return b""
            self._skipping = False
            data = data[newline + 1 :]
        if self._kept:
            data = self._kept + data
            self._kept = b""
        end = data.rfind(b"\n", 0, self._open_event(data) if may_hold_event(data) else len(data))
        rest = data[end + 1 :]
        if len(rest) > self._longest:
            self.too_long += 1
            self._skipping = True
        else:
            self._kept = rest
        return data[:end] if end > 0 else b""

    def end(self) -> bytes:
        """The last line, which no newline closed."""
        kept, self._kept = self._kept, b""
        self._skipping = False
        return kept

    def _open_event(self, data: bytes) -> int:
        """Where an event starts that has not all arrived; the end of the data if there is none."""
        done = 0
        for start, end in _events(data, self._longest):
            if start >= done:
                newline = data.find(b"\n", end)
                if newline < 0:
                    return start
                done = newline + 1
        return len(data)


class FrameStream:
    """Takes the frames of one connection apart. Holds at most `longest` bytes.

    `too_long` counts the refused lines. `broken` is set by a length that no frame has: what follows cannot be
    told apart, and the connection is to be closed.
    """

    __slots__ = ("_header", "_left", "_lines", "broken")

    def __init__(self, longest: int) -> None:
        self._header = b""
        self._left = 0  # bytes of the open frame that have not come
        self._lines = LineStream(longest)
        self.broken = False

    @property
    def too_long(self) -> int:
        """Lines refused because they were longer than the limit."""
        return self._lines.too_long

    def feed(self, data: bytes) -> list[bytes]:
        """What is complete by now: whole frames, and whole lines of one that has not all come."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.broken:
            if not self._left:
                taken = data[at : at + _HEADER - len(self._header)]
                self._header += taken
                at += len(taken)
                if len(self._header) == _HEADER:
                    self._left = int.from_bytes(self._header, "little")
                    self._header = b""
                    self.broken = self._left > _LONGEST_FRAME
                    if at + self._left <= len(data):
                        pieces.append(data[at : at + self._left])
                        at += self._left
                        self._left = 0
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            pieces.append(self._lines.feed(part))
            if not self._left:
                pieces.append(self._lines.end())
        return [piece for piece in pieces if piece]

    def end(self) -> bytes:
        """The start of a line whose end never came, which its frame would have held."""
        return self._lines.end()


class AutoStream:
    """One connection: newlines or frames, by its first four bytes."""

    __slots__ = ("_first", "_frames", "_lines", "_longest")

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._first = b""
        self._lines: LineStream | None = None
        self._frames: FrameStream | None = None

    @property
    def too_long(self) -> int:
        """Lines refused because they were longer than the limit."""
        stream = self._lines or self._frames
        return stream.too_long if stream else 0

    @property
    def broken(self) -> bool:
        """Whether the stream is out of step for good."""
        return self._frames is not None and self._frames.broken

    @property
    def framed(self) -> bool:
        """Whether it turned out to hold frames."""
        return self._frames is not None

    def feed(self, data: bytes) -> list[bytes]:
        """What is complete by now, each piece as a datagram would be."""
        if self._lines is not None:
            lines = self._lines.feed(data)
            return [lines] if lines else []
        if self._frames is not None:
            return self._frames.feed(data)
        self._first += data
        if len(self._first) < _HEADER:
            return []
        first, self._first = self._first, b""
        if first[_HEADER - 1]:
            self._lines = LineStream(self._longest)
        else:
            self._frames = FrameStream(self._longest)
        return self.feed(first)

    def end(self) -> bytes:
        """The last line, which nothing closed: whole where newlines part the lines, cut short in a frame."""
        stream = self._lines or self._frames
        return stream.end() if stream else self._first
