"""The compiled engine: the core in C (core/core.h) reads and adds, Python decides.

What a line is made of, which series it belongs to and why it is refused comes from the same Python code as in
the engine in Python; this engine differs in where the values gather. A head is read once and bound to its
series in the core, which from then on needs nobody. Where the core stops at a line it is one of

    NEW_HEAD      bound, or refused; then the line is tried again
    ODD_VALUES    a sign, an exponent, a fault: read by the grammar, added with `Core.add`
    KNOWN_FAULT   its head was refused before
    WHOLE         several bits, a timestamp, a check, no metric at all
    AT_EVENT      an event, which says itself where it ends

and then goes on, so that everything happens in the order of arrival. What reader threads received and could
not read waits in the core's queue (`settle`).
"""

from __future__ import annotations

import ipaddress
import secrets
import struct
import weakref
from array import array
from collections import Counter
from typing import Any, Final

from collector.engine import _core
from collector.engine.accumulators import SetAccumulator
from collector.engine.heads import HeadTable, Resolved
from collector.engine.interface import NOBODY, UNKNOWN, Interval, Limits, Policed, Sender
from collector.engine.interval import PureInterval
from collector.engine.native_interval import Names, NativeInterval
from collector.engine.pure import PureEngine
from collector.model import GaugeMode, Kind, Series, Window
from collector.sketch import BOUNDS
from collector.statsd.events import event_end
from collector.statsd.lines import Move, Profile, Value, parse_head
from collector.statsd.refusal import Refusal

# A start with 100,000 series that all come in a moment must lose none, and Python reads about 100,000 heads a
# second. The memory is taken as it is needed.
_WAITING: Final = 250_000  # heads that may wait for Python at one time: some 60 MB with their lines
_QUEUE_BYTES: Final = 48 * 2**20  # of lines that wait, some 40 of them each for what is known of it
_KNOWN_FAULTS: Final = 1024  # refusals by head, kept with their messages
_SETTLED_AT_FLUSH: Final = 1000  # pieces: some 10 ms; what more waits goes on into the next window

_AF_UNIX: Final = 1  # Linux
_AF_INET: Final = 2
_AF_INET6: Final = 10
_NOT_ASKED: Final = b"\0\0"

_STATES: Final = {
    Kind.COUNTER: _core.COUNTER,
    Kind.TIMER: _core.TIMER,
    Kind.SET: _core.SET,
}


class NativeHeads(HeadTable):
    """The series that the core knows; heads it keeps itself."""

    def __init__(self, core: _core.Core, limits: Limits, limit_hits: Counter[str]) -> None:
        super().__init__(limits, limit_hits)
        self._core = core

    @property
    def series(self) -> int:
        """How many series are known."""
        return self._core.series

    @property
    def heads(self) -> int:
        """How many heads are remembered."""
        return self._core.heads

    def number(self, series: Series) -> int:
        """The number of a series in the core; Refusal when it is new and a limit is in the way."""
        metric = len(series.name.encode()) + 1
        found = self._core.intern(series.key.encode(), metric)
        if found == _core.FULL:
            raise self.full()
        if found == _core.METRIC_FULL:
            raise self.metric_full()
        return found

    def _intern(self, series: Series) -> Series:
        self.number(series)
        return series


class NativeEngine(PureEngine):
    """See `collector.engine.interface.Engine` for the contract.

    Whole lines, refusals and the clock of the windows are the Python engine's own.
    """

    name = "native"

    def __init__(self, now: float, **options: Any) -> None:
        """As PureEngine."""
        super().__init__(now, **options)
        limits = self._limits
        self._core = _core.Core(
            secrets.randbits(64),  # the hash of names must not be known outside
            array("d", BOUNDS).tobytes(),
            series=limits.series,
            series_per_metric=limits.series_per_metric,
            heads=limits.heads,
            line=limits.line,
            set_members=limits.set_members,
            samples=limits.samples,
            waiting=_WAITING,
            queue_bytes=_QUEUE_BYTES,
        )
        self._reasons: list[tuple[str, str]] = []  # reason, limit
        self._oddities: list[tuple[str, ...]] = [()]
        self._faults: dict[tuple[int, bytes, bytes], Refusal] = {}
        self.names = Names(self._core)
        self._unread: weakref.WeakSet[NativeInterval] = weakref.WeakSet()
        self._turn = 0
        self._counted: tuple[int, int, int, int, list[int], list[int]] = (
            *(0, 0, 0, 0),
            [0] * _core.MOST_REASONS,
            [0] * _core.MOST_ODDITIES,
        )
        self._known = NativeHeads(self._core, self._limits, self.limit_hits)
        self._heads = self._known
        window = self._interval.window
        self._core.begin(window.start * 1000, window.end * 1000)

    def add_profile(self, profile: Profile) -> int:
        """Registers how a listener reads lines; the number is for `ingest`."""
        number = super().add_profile(profile)
        self._core.add_profile(number, profile.gauges is GaugeMode.STATSD, profile.meters)
        return number

    # ------------------------------------------------------------------ windows

    def _open(self, now: float) -> None:
        super()._open(now)
        window = self._interval.window
        self._gathering = NativeInterval(window, self._limits, self.limit_hits, self)
        self._interval = self._gathering

    def _retire(self, now: float) -> None:
        self._drain()  # what was received in the window that ends belongs to it
        self._take_spills()
        ending, length, new = self._gathering, self._length, self._window_of(now)
        ended = self._core.cut(ending.window.start * 1000, new.start * 1000, new.end * 1000)
        for at, cells in ended:  # more than one where threads went on while Python was held up
            interval = ending
            if at != ending.window.start * 1000:
                window = Window(at // 1000, at // 1000 + length)
                interval = NativeInterval(window, self._limits, self.limit_hits, self)
            interval.retire(cells, self._turn)
            if interval:
                self._retired.append(interval)
                self._unread.add(interval)
        self._forget_in_time(now)
        self._open(now)

    def flush(self, now: float) -> list[Interval]:
        """The windows that have ended by `now`, oldest first."""
        self._drain()
        self._take_spills()
        self._take_counts()
        return super().flush(now)

    def close(self, now: float) -> list[Interval]:
        """All windows, the open one included, with all that waits."""
        while self.settle(_SETTLED_AT_FLUSH):
            pass
        return super().close(now)

    def _forget(self) -> None:
        """Forgets idle heads and series. A series may still be asked for by a window that nobody has read."""
        for interval in list(self._unread):
            if interval.turn < self._turn:
                interval.keep_names()
        self._turn += 1
        for number in self._core.turn():
            self.names.pop(number, None)

    def _take_spills(self) -> None:
        window = self._interval.window
        for number, members in self._core.spills():
            early = PureInterval(window, self._limits, self.limit_hits)
            ahead = early.of(self.names[number])
            assert isinstance(ahead, SetAccumulator)
            ahead.members.update(member.decode("latin-1") for member in members)
            self._retired.append(early)

    # ------------------------------------------------------------------ lines

    def ingest(self, profile: int, data: bytes, sender: Sender, now: float) -> int:
        """Takes one datagram, or whole lines of a stream; the number of lines that were in it."""
        if now >= self._end or now < self._least:
            self._retire(now)
        return self._ingest(profile, data, sender, now)

    def _ingest(self, profile: int, data: bytes, sender: Sender, now: float) -> int:
        core = self._core
        stop = core.feed(profile, data, int(now * 1000))
        while stop:
            self._settle(stop, profile, data, sender, now)
            stop = core.resume()
        self._take_counts()
        return core.lines

    def _settle(self, stop: int, profile: int, data: bytes, sender: Sender, now: float) -> None:
        """Does what the core stopped for."""
        core = self._core
        if stop == _core.NEW_HEAD:
            self._new_head(profile, sender, now)
        elif stop == _core.ODD_VALUES:
            state, number, weight, odd = core.known
            self._odd_values(profile, state, number, weight, odd, sender, now)
        elif stop == _core.KNOWN_FAULT:
            self._refuse(self._fault(profile, *core.head), core.line, sender, now)
        elif stop == _core.AT_EVENT:
            self._event(profile, data, core.at, sender, now)
        elif stop == _core.TOO_LONG:
            self._too_long(core.line, sender, now)
        else:
            self._read_whole(profile, core.line, sender, now)

    def _new_head(self, profile: int, sender: Sender, now: float) -> None:
        name, tail = self._core.head
        found = self._resolve(profile, name, tail)
        if found is None:
            self._read_whole(profile, self._core.line, sender, now)
        elif isinstance(found, Refusal):
            self._refuse(found, self._core.line, sender, now)
            if found.reason != "cardinality":  # room may come again
                self._count_refused(found, self._bind_fault(profile, name, tail, found))
        elif self._bind(profile, name, tail, found) >= 0:
            self._core.retry()
        else:
            self.limit_hits["heads"] += 1
            self._values_of(profile, found, self._core.line, sender, now)

    def _resolve(self, profile: int, name: bytes, tail: bytes) -> Resolved | Refusal | None:
        """What a head means; None where the line must be read whole."""
        try:
            head = parse_head(name, tail, self._profiles[profile])
            return None if head is None else self._heads.of(head)
        except Refusal as refusal:
            return refusal.shifted(0)  # a copy: it is kept, and this one holds the frames it passed

    def _bind(self, profile: int, name: bytes, tail: bytes, found: Resolved) -> int:
        """Tells the core what a head is; the lines that waited for it, -1 where it cannot be remembered."""
        if found.odd not in self._oddities:
            if len(self._oddities) == _core.MOST_ODDITIES:
                return -1
            self._oddities.append(found.odd)
        odd = self._oddities.index(found.odd)
        number = self._known.number(found.series)
        state = self._state(profile, found.series.kind)
        return self._core.bind(profile, name, tail, state, number, found.weight, odd)

    def _state(self, profile: int, kind: Kind) -> int:
        if kind is Kind.GAUGE:
            moving = self._profiles[profile].gauges is GaugeMode.STATSD
            return _core.GAUGE_MOVING if moving else _core.GAUGE
        return _STATES[kind]

    def _bind_fault(self, profile: int, name: bytes, tail: bytes, fault: Refusal) -> int:
        """Tells the core that a head is refused; the lines that waited for it."""
        kind = (fault.reason, fault.limit)
        if kind not in self._reasons:
            assert len(self._reasons) < _core.MOST_REASONS, "there are some twenty"
            self._reasons.append(kind)
        reason = self._reasons.index(kind)
        waited = self._core.bind(profile, name, tail, _core.REFUSED, reason, 1.0, 0)
        if waited < 0:
            self.limit_hits["heads"] += 1
        return max(0, waited)

    def _count_refused(self, fault: Refusal, lines: int) -> None:
        if lines:
            self.rejected[fault.reason] += lines
            if fault.limit:
                self.limit_hits[fault.limit] += lines

    def _fault(self, profile: int, name: bytes, tail: bytes) -> Refusal:
        """Why a head is refused, with its message: the core remembers the reason only."""
        key = (profile, name, tail)
        found = self._faults.get(key)
        if found is None:
            try:
                head = parse_head(name, tail, self._profiles[profile])
                assert head is not None
                self._heads.of(head)
            except Refusal as refusal:
                found = refusal.shifted(0)
            assert found is not None, "a head is refused again as it was before"
            if len(self._faults) >= _KNOWN_FAULTS:
                self._faults.clear()
            self._faults[key] = found
        return found

    # ------------------------------------------------------------------ values that the core leaves to Python

    def _odd_values(
        self, profile: int, state: int, number: int, weight: float, odd: int, sender: Sender, now: float
    ) -> None:
        found = Resolved(self.names[number], weight, self._oddities[odd])
        self._values_of(profile, found, self._core.line, sender, now)

    def _values_of(self, profile: int, found: Resolved, line: bytes, sender: Sender, now: float) -> None:
        value = line.partition(b":")[2].partition(b"|")[0].decode("latin-1")
        values = self._values(profile, value, found, line, sender, now)
        if not values:
            return  # nothing but faults: not to be seen as a series that counts zero
        self.odd.update(found.odd)
        for parsed in values:
            self.add(found.series, parsed, found.weight, int(now * 1000))

    def add(self, series: Series, value: Value, weight: float, at: int) -> None:
        """Adds one value to the open window; `at` is in milliseconds."""
        number = self._known.number(series)
        moves = isinstance(value, Move)
        plain = value.by if isinstance(value, Move) else value
        state = _core.GAUGE if series.kind is Kind.GAUGE else _STATES[series.kind]
        try:
            if not self._core.add(number, state, weight, plain, moves, at):
                assert isinstance(plain, float)
                self._core.add(number, state, weight, 0.0, False, at)  # so that the series has a cell
                self._gathering.huge.setdefault(series.key, []).append((weight, plain))
        except MemoryError:
            self.limit_hits["memory"] += 1

    def _event(self, profile: int, data: bytes, start: int, sender: Sender, now: float) -> None:
        """An event is one line where its own lengths fit what is there; else its line is like any other."""
        end = event_end(data, start)
        if end is None or end > len(data) or end - start > self._limits.line:
            end = start
        newline = data.find(b"\n", end)
        stop = len(data) if newline < 0 else newline
        self._core.skip(stop + 1)
        line = data[start:stop]
        if len(line) > self._limits.line:
            self._too_long(line, sender, now)
        else:
            self._read_whole(profile, line, sender, now)

    def _too_long(self, line: bytes, sender: Sender, now: float) -> None:
        refusal = Refusal("too_long", self._limits.line, f"a line of {len(line)} bytes", limit="line")
        self._refuse(refusal, line, sender, now)

    # ------------------------------------------------------------------ what reader threads leave to Python

    def reader(
        self, socket: int, wake: int, profile: int, buffer: int, policed: Policed | None = None
    ) -> _core.Reader:
        """A thread that empties a datagram socket into this engine; it lives until its `close`.

        `socket` and `wake` are descriptors; `wake`, an eventfd, is written to when `settle` is to be called.
        `buffer` is what the kernel holds for the socket, in bytes. OSError if there is no thread.
        """
        return _core.Reader(self._core, socket, wake, profile, buffer, policed)

    def settle(self, most: int) -> bool:
        """Reads up to `most` of the lines that wait; whether more do. `settled` counts those by profile."""
        for _ in range(most):
            piece = self._core.take()
            if piece is None:
                self._take_counts()
                return False
            counted, profile, at, address, data = piece
            if counted:
                self._settle_head(profile, data, sender_of(address), at / 1000)
            else:
                self.settled[profile] += self._ingest(profile, data, sender_of(address), at / 1000)
        self._take_counts()
        return True

    def _drain(self) -> None:
        self.settle(_SETTLED_AT_FLUSH)

    def _settle_head(self, profile: int, line: bytes, sender: Sender, now: float) -> None:
        """Finds out what a waiting head is; its values go where they belong, or are refused, all of them."""
        name, _, rest = line.partition(b":")
        tail = rest.partition(b"|")[2]
        if not self._core.waits(profile, name, tail):
            return
        found = self._resolve(profile, name, tail)
        assert found is not None, "the core lets no line wait that is to be read whole"
        if isinstance(found, Refusal):
            waited = self._bind_fault(profile, name, tail, found)
            self._refuse(found, line, sender, now)
            self._count_refused(found, waited - 1)
            if found.reason == "cardinality":
                self._core.forget(profile, name, tail)
        elif self._bind(profile, name, tail, found) < 0:
            waited = self._bind(profile, name, tail, Resolved(found.series, found.weight, ()))
            self._core.forget(profile, name, tail)
            for odd in found.odd:
                self.odd[odd] += waited

    def _take_counts(self) -> None:
        """Adds what the core has counted by itself."""
        counts = self._core.counts()
        if counts is None:
            return
        before, self._counted = self._counted, counts
        spilled, lost, overload, truncated = (
            now - then for now, then in zip(counts[:4], before[:4], strict=True)
        )
        for counter, name, more in (
            (self.limit_hits, "set_members", spilled),
            (self.limit_hits, "memory", lost),
            (self.rejected, "overload", overload),
            (self.rejected, "too_long", truncated),
            (self.limit_hits, "line", truncated),
        ):
            if more:
                counter[name] += more
        for (reason, limit), now, then in zip(self._reasons, counts[4], before[4], strict=False):
            self._count_refused(Refusal(reason, limit=limit), now - then)
        for names, now, then in zip(self._oddities, counts[5], before[5], strict=False):
            for name in names if now > then else ():
                self.odd[name] += now - then


def sender_of(address: bytes) -> Sender:
    """The sender out of a Linux `sockaddr`; "local" for a unix socket's client without a name, as most."""
    if address == _NOT_ASKED:
        return UNKNOWN
    family = struct.unpack_from("=H", address)[0] if len(address) > 2 else 0
    if family == _AF_UNIX:
        return address[2:].rstrip(b"\0").decode("utf-8", "backslashreplace") or NOBODY
    port = struct.unpack_from("!H", address, 2)[0] if len(address) >= 4 else 0
    if family == _AF_INET:
        return str(ipaddress.IPv4Address(address[4:8])), port
    if family == _AF_INET6:
        return str(ipaddress.IPv6Address(address[8:24])), port
    return NOBODY
