r"""The engine in Python: the fallback without a compiler, and the reference for the compiled one.

How a line travels:

    api.latency:231|ms|@0.1|#route:/pay
    name        value tail
                --------- rest ----

    tails   tail -> (action, cells)              cells: name -> where the values of that head go
    rests   rest -> (action, cells, value)       what was found for a rest before, its value converted

The hot loop splits the line once, at its first colon. Most of what follows the colon has been seen before
in this window (`1|c` above all, and milliseconds are short): one look-up then gives the cells and the
number. Otherwise `_find` splits the rest, and converts a value of the plainest form: digits, for timers
and gauges with a point. All else (a new head, a sign, an exponent, several values, a fault) leaves the loop
through a KeyError and is read with the full grammar. All ways end in the same cells, so order holds:
nothing waits in a queue.

Cells belong to one window. Retiring it swaps in an empty table, in constant time, and each head finds
its way back through `HeadTable` on its first line in the new window. So a flush costs the loop nothing
by itself, and what a retired window holds can be read out in chunks later.

Bytes are looked at as latin-1 text: a bijection, at the speed of a copy, and `str` is what Python's
own split, partition and dictionaries are fastest with.
"""

from __future__ import annotations

from collections import Counter, deque
from itertools import count
from typing import Any, Final

from collector.addresses import host_port
from collector.engine.accumulators import (
    Accumulator,
    CounterAccumulator,
    GaugeAccumulator,
    SetAccumulator,
    TimerAccumulator,
)
from collector.engine.heads import HeadTable, Resolved
from collector.engine.interface import Interval, Limits, Policed, Reader, RefusedLine, Sender
from collector.engine.interval import PureInterval
from collector.model import Kind, Window
from collector.statsd.events import CHECK, EVENT, may_hold_event, parse_check, parse_event
from collector.statsd.framing import split_lines
from collector.statsd.lines import Profile, Value, parse_line, parse_value
from collector.statsd.refusal import Refusal

# What the hot loop does with a value, by kind and mode. Small integers: compared with `is`.
_COUNT, _TIME, _SET_GAUGE, _ADD_MEMBER = range(4)

_KEPT_REFUSED: Final = 200
_SHOWN_BYTES: Final = 512
_PLAIN_DIGITS: Final = 18  # up to so many characters, digits fit an int64 and a double's range
_FOLD_EVERY: Final = 16_384  # lines between two looks at how much raw samples hold,
_FOLD_PARTS: Final = 64  # each at so small a part of the timers: a round takes a million lines
_KNOWN_RESTS: Final = 65536  # about 12 MB when full; what comes first in a window stays
_SHORT: Final = 64  # characters of a rest that may well come again

# A cell is a sum (counters), or an accumulator's list (timers) or set (sets), or an accumulator (gauges).
_Cells = dict[str, Any]
_Found = tuple[int, _Cells, Any]


class _Tables:
    """Where the lines of one profile go in the open window."""

    __slots__ = ("rests", "tails")

    def __init__(self) -> None:
        self.tails: dict[str, tuple[int, _Cells]] = {}
        self.rests: dict[str, _Found] = {}


class PureEngine:
    """See `collector.engine.interface.Engine` for the contract."""

    name = "python"

    def __init__(
        self,
        now: float,
        *,
        flush_interval: int = 10,
        idle_expiry: float = 3600,
        backfill_window: float = 3600,
        future_window: float = 60,
        limits: Limits | None = None,
    ) -> None:
        """All times in seconds; windows are aligned to multiples of `flush_interval`.

        A sample with a timestamp is taken when that lies between `backfill_window` ago and
        `future_window` ahead. Series and heads idle for `idle_expiry` are forgotten.
        """
        self._limits = limits or Limits()
        self._length = flush_interval
        self._idle_expiry = idle_expiry
        self._backfill_window = backfill_window
        self._future_window = future_window
        self.rejected: Counter[str] = Counter()
        self.odd: Counter[str] = Counter()
        self.limit_hits: Counter[str] = Counter()
        self.refused: deque[RefusedLine] = deque(maxlen=_KEPT_REFUSED)
        self.settled: Counter[int] = Counter()
        self._heads = HeadTable(self._limits, self.limit_hits)
        self._profiles: dict[int, Profile] = {}
        self._numbers = count()
        self._retired: list[Interval] = []
        self._turn_at = now + idle_expiry
        self._open(now)

    @property
    def series(self) -> int:
        """Series known now."""
        return self._heads.series

    def add_profile(self, profile: Profile) -> int:
        """Registers how a listener reads lines, or those of one sender; the number is for `ingest`."""
        number = next(self._numbers)
        self._profiles[number] = profile
        return number

    def forget_profile(self, number: int) -> None:
        """Gives up a profile; what came for it stays in the open window, its heads are forgotten in time."""
        del self._profiles[number]

    def reader(
        self, socket: int, wake: int, profile: int, buffer: int, policed: Policed | None = None
    ) -> Reader | None:
        """None: Python receives in the event loop."""
        return None

    def settle(self, most: int) -> bool:
        """Nothing waits: each line is read when it comes."""
        return False

    # ------------------------------------------------------------------ windows

    def _window_of(self, now: float) -> Window:
        start = int(now // self._length) * self._length
        return Window(start, start + self._length)

    def _open(self, now: float) -> None:
        window = self._window_of(now)
        self._interval = PureInterval(window, self._limits, self.limit_hits)
        self._tables: dict[int, _Tables] = {}
        self._end = float(window.end)
        # A clock that steps back across the edge must not open the last window again: within one
        # interval the open window goes on. A longer step is a new time, and is followed.
        self._least = float(window.start - self._length)
        self._unfolded = 0

    def _retire(self, now: float) -> None:
        if self._interval:
            self._interval.leftovers = [tables.rests for tables in self._tables.values()]
            self._retired.append(self._interval)
        self._forget_in_time(now)
        self._open(now)

    def _forget_in_time(self, now: float) -> None:
        if now >= self._turn_at or now < self._turn_at - 2 * self._idle_expiry:
            self._forget()
            self._turn_at = now + self._idle_expiry

    def _forget(self) -> None:
        """Forgets idle heads and series."""
        self._heads.turn()

    def flush(self, now: float) -> list[Interval]:
        """The windows that have ended by `now`, oldest first."""
        if now >= self._end or now < self._least:
            self._retire(now)
        retired, self._retired = self._retired, []
        return retired

    def close(self, now: float) -> list[Interval]:
        """All windows, the open one included."""
        self._retire(now)
        return self.flush(now)

    # ------------------------------------------------------------------ the hot loop

    def ingest(self, profile: int, data: bytes, sender: Sender, now: float) -> int:
        """Takes one datagram, or whole lines of a stream; the number of lines that were in it."""
        if now >= self._end or now < self._least:
            self._retire(now)
        if may_hold_event(data):
            lines = split_lines(data, self._limits.line)
        else:
            lines = data.decode("latin-1").removesuffix("\n").split("\n")
        counted = len(lines) - lines.count("") - lines.count("\r")
        if len(data) > self._limits.line:
            lines = self._refuse_long(lines, sender, now)
        add, time, set_gauge = _COUNT, _TIME, _SET_GAUGE
        tables = self._tables.get(profile)
        if tables is None:
            tables = self._tables[profile] = _Tables()
        known, find = tables.rests.get, self._find
        nearly_full = self._limits.set_members - 1  # the last member is added by _read, which spills
        at = int(now * 1000)
        for line in lines:
            name, _, rest = line.partition(":")
            found = known(rest)
            try:
                if found is None:
                    found = find(rest, tables)
                action, cells, value = found
                if action is add:
                    cells[name] += value
                elif action is time:
                    cells[name].append(value)
                elif action is set_gauge:
                    gauge = cells[name]
                    gauge.value = value
                    gauge.move = 0
                    gauge.at = at
                else:
                    members = cells[name]
                    if len(members) >= nearly_full:
                        raise KeyError(name)
                    members.add(value)
            except KeyError:
                self._read(profile, name, rest, line, sender, now)
        self._unfolded += len(lines)
        if self._unfolded >= _FOLD_EVERY:
            self._unfolded = 0
            self._interval.fold_timers(_FOLD_PARTS)
        return counted

    @staticmethod
    def _find(rest: str, tables: _Tables) -> _Found:
        """Where a value goes and what it is; KeyError for a new tail and for a value that is not plain."""
        text, _, tail = rest.partition("|")
        action, cells = tables.tails[tail]
        value: Any = text
        if action is _ADD_MEMBER:
            if not text:
                raise KeyError(rest)
        # On latin-1 text, isdecimal() is true for ASCII digits only.
        elif text.isdecimal() and len(text) <= _PLAIN_DIGITS:
            value = float(text) if action is _TIME else int(text)
        elif action is _COUNT or len(text) > _PLAIN_DIGITS or text.strip("0123456789."):
            raise KeyError(rest)
        else:
            try:
                value = float(text)
            except ValueError:  # "", ".", "1.2.3"
                raise KeyError(rest) from None
        found = (action, cells, value)
        if len(rest) <= _SHORT and len(tables.rests) < _KNOWN_RESTS:
            tables.rests[rest] = found
        return found

    # ------------------------------------------------------------------ everything else

    def _read(self, profile: int, name: str, rest: str, line: str, sender: Sender, now: float) -> None:
        """Reads a line that the loop could not: resolves its head, or takes it whole."""
        if not line or line == "\r":
            return
        value, _, tail = rest.partition("|")
        raw = line.encode("latin-1")
        if "|" in name or not tail or raw.startswith((EVENT, CHECK)):
            self._read_whole(profile, raw, sender, now)
            return
        found = self._heads.resolve((profile, name, tail), self._profiles[profile])
        if found is None:
            self._read_whole(profile, raw, sender, now)
        elif isinstance(found, Refusal):
            self._refuse(found, raw, sender, now)
        else:
            values = self._values(profile, value, found, raw, sender, now)
            if not values:
                return  # nothing but faults: not to be seen as a series that counts zero
            gathered = self._interval.of(found.series)
            if not found.odd:
                self._link(profile, name, tail, gathered, found)
            self.odd.update(found.odd)
            for parsed in values:
                gathered.add(parsed, found.weight, int(now * 1000))
            if isinstance(gathered, SetAccumulator):
                self._spill(gathered)

    def _link(self, profile: int, name: str, tail: str, gathered: Accumulator, found: Resolved) -> None:
        """Lets the hot loop find the head for the rest of the window."""
        action: int
        cell: Any
        match gathered:
            case CounterAccumulator():
                action, cell = _COUNT, 0
            case TimerAccumulator():
                action, cell = _TIME, gathered.raw(found.weight)
            case GaugeAccumulator():
                action, cell = _SET_GAUGE, gathered
            case SetAccumulator():
                action, cell = _ADD_MEMBER, gathered.members
        _, cells = self._tables[profile].tails.setdefault(tail, (action, {}))
        if name in cells:
            return  # it is there already; only the value was out of the ordinary
        cells[name] = cell
        if isinstance(gathered, CounterAccumulator):
            gathered.heads.append((found.weight, cells, name))

    def _values(
        self, profile: int, value: str, found: Resolved, line: bytes, sender: Sender, now: float
    ) -> list[Value]:
        """The values of a line whose head is known; a bad one is refused by itself."""
        kind, reading = found.series.kind, self._profiles[profile]
        if kind is not Kind.SET and value.isdecimal() and len(value) <= _PLAIN_DIGITS:
            return [int(value)]  # what nearly all are: the grammar would say the same, later
        texts = [value] if kind is Kind.SET else value.split(":")
        at = line.find(b":") + 1
        values: list[Value] = []
        for text in texts:
            try:
                values.append(parse_value(text.encode("latin-1"), kind, reading))
            except Refusal as refusal:
                self._refuse(refusal.shifted(at), line, sender, now)
            at += len(text) + 1
        return values

    def _spill(self, gathered: SetAccumulator, start: int | None = None) -> None:
        """Retires the members of a set at its limit ahead of their window; PFADD is idempotent."""
        if len(gathered.members) >= self._limits.set_members:
            self.limit_hits["set_members"] += 1
            if start is None:
                start = self._interval.window.start
            early = PureInterval(Window(start, start + self._length), self._limits, self.limit_hits)
            ahead = early.of(gathered.series)
            assert isinstance(ahead, SetAccumulator)
            ahead.members |= gathered.members
            gathered.members.clear()
            self._retired.append(early)

    def _read_whole(self, profile: int, line: bytes, sender: Sender, now: float) -> None:
        """Events, checks, several bits, timestamps, and what is no metric at all."""
        tags = self._profiles[profile].tags
        try:
            if line.startswith(EVENT):
                event, odd = parse_event(line, tags)
                self._keep(self._interval.events, event)
            elif line.startswith(CHECK):
                check, odd = parse_check(line, tags)
                self._keep(self._interval.checks, check)
            else:
                self._read_bits(profile, line, sender, now)
                return
            self.odd.update(odd)
        except Refusal as refusal:
            self._refuse(refusal, line, sender, now)

    def _keep(self, kept: list[Any], item: object) -> None:
        if len(kept) >= self._limits.events:
            found = f"limit of {self._limits.events} in a flush window"
            raise Refusal("cardinality", 0, found, limit="events")
        kept.append(item)

    def _read_bits(self, profile: int, line: bytes, sender: Sender, now: float) -> None:
        parsed = parse_line(line, self._profiles[profile])
        for bit in parsed.bits:
            try:
                stamp = bit.head.timestamp
                start = None if stamp is None else self._bucket(stamp, now)
                found = self._heads.of(bit.head)
            except Refusal as refusal:
                self._refuse(refusal, line, sender, now)
                continue
            self.odd.update(bit.head.odd)
            gathered = self._interval.of(found.series, start)
            at = int(now * 1000) if stamp is None else stamp * 1000
            for value in bit.values:
                gathered.add(value, found.weight, at)
            if isinstance(gathered, SetAccumulator):
                self._spill(gathered, start)
        for fault in parsed.refusals:
            self._refuse(fault, line, sender, now)

    def _bucket(self, stamp: int, now: float) -> int:
        """Where the window of a timestamp starts; Refusal when samples of that time are not taken."""
        if not now - self._backfill_window <= stamp <= now + self._future_window:
            raise Refusal("stale_timestamp", 0, f"{stamp - now:+.0f} s from now")
        return stamp - stamp % self._length

    # ------------------------------------------------------------------ refusals

    def refuse(self, reason: str, line: bytes, sender: Sender, now: float) -> None:
        """Counts and keeps a line that a listener had to refuse before it was whole."""
        self._refuse(Refusal(reason, limit="line" if reason == "too_long" else ""), line, sender, now)

    def _refuse(self, refusal: Refusal, line: bytes, sender: Sender, now: float) -> None:
        self.rejected[refusal.reason] += 1
        if refusal.limit:
            self.limit_hits[refusal.limit] += 1
        shown = line[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
        escaped = shown.encode("unicode_escape").decode()
        self.refused.append(RefusedLine(now, refusal.reason, refusal.message, sender_text(sender), escaped))

    def _refuse_long(self, lines: list[str], sender: Sender, now: float) -> list[str]:
        """The lines within the limit; in the table of heads the others would not show their size."""
        limit = self._limits.line
        for line in lines:
            if len(line) > limit:
                refusal = Refusal("too_long", limit, f"a line of {len(line)} bytes", limit="line")
                self._refuse(refusal, line.encode("latin-1"), sender, now)
        return [line if len(line) <= limit else "" for line in lines]


def sender_text(sender: Sender) -> str:
    """An address as people write it: "127.0.0.1:40122", "[::1]:40122"."""
    if isinstance(sender, str):
        return sender
    return host_port(str(sender[0]), int(sender[1]))
