r"""Lines out of a byte stream, without I/O.

    read 1   "a:1|c\nb:2"          -> "a:1|c"      keeps "b:2"
    read 2   "|c\nc:3|c"           -> "b:2|c"      keeps "c:3|c"
    end                            -> "c:3|c"      a last line needs no newline

A line longer than the limit is refused once, and what follows is skipped up to the next newline, where
the stream is in step again. An event may hold raw newlines; one that has not all arrived is kept back.
"""

from __future__ import annotations

from collector.statsd.events import EVENT, event_end


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
        end = data.rfind(b"\n")
        end = self._before_open_event(data, end)
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

    def _before_open_event(self, data: bytes, end: int) -> int:
        """`end`, or the newline before an event whose own length reaches beyond the data."""
        start = data.rfind(EVENT)
        if start < 0 or (start and data[start - 1] != 0x0A):
            return end
        stop = event_end(data, start)
        if stop is None or not len(data) < stop <= start + self._longest:
            return end
        return start - 1
