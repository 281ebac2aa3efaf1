r"""Lines out of a datagram or a byte stream, without I/O.

    read 1   "a:1|c\nb:2"          -> "a:1|c"      keeps "b:2"
    read 2   "|c\nc:3|c"           -> "b:2|c"      keeps "c:3|c"
    end                            -> "c:3|c"      a last line needs no newline

A line longer than the limit is refused once, and what follows is skipped up to the next newline, where
the stream is in step again.

An event says how long it is and may hold raw newlines. It is one line where its lengths fit what is there;
else its lines are lines of their own. So a wrong length spoils no line behind it, and a stream gives the
same wherever it is cut into reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from collector.statsd.events import EVENT, event_end

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
        end = data.rfind(b"\n", 0, self._open_event(data) if EVENT in data else len(data))
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
