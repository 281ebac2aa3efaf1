"""The compiled engine against the one in Python: the same bytes, clocks and limits give the same."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import engines
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.engine import ENGINES, WITHOUT_CORE, Limits, PureEngine, Reader
from collector.model import CounterPoint, GaugeMode, GaugePoint, SetPoint, TimerPoint
from collector.sketch import BOUNDS, Sketch
from collector.statsd.lines import Profile
from collector.statsd.names import Dialect

pytestmark = [
    pytest.mark.skipif("native" not in ENGINES, reason=f"no compiled core: {WITHOUT_CORE}"),
    pytest.mark.usefixtures("each_way"),
]


@pytest.fixture(scope="module", params=["native", "baseline"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """The core as this processor allows, and as every one does."""
    with engines.chosen(request.param):
        yield


NOW = 1_656_581_405.0
PROFILES = [
    Profile(longest_line=256),
    Profile(
        gauges=GaugeMode.DOGSTATSD,
        dialects=frozenset(Dialect),
        meters=True,
        bare_names=True,
        longest_line=256,
    ),
]

NAMES = st.sampled_from(
    [b"a", b"b.c", b"d e", b"f/g", b"", b"n,k=v", b"\xff", b"\xc3\xa9", b"x" * 30, b"_e{"]
)
NUMBERS = st.one_of(
    st.integers(-3, 300).map(lambda n: b"%d" % n),
    st.integers(-(10**20), 10**20).map(lambda n: b"%d" % n),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: repr(x).encode()),
    st.decimals(-1000, 1000, places=3).map(lambda d: str(d).encode()),
    st.sampled_from(b" +1 -0 -0.0 +.5 5. . 1e3 9.3e-05 1e400 nan 0x1 1_0 1e308 -1e308".split(b" ")),
    st.sampled_from([b"9223372036854775807", b"-9223372036854775808", b"0" * 25, b"12.345678901234567"]),
)
VALUES = st.lists(NUMBERS, min_size=1, max_size=3).map(b":".join)
TAILS = st.sampled_from(
    [
        *(b"|c |g " * 3 + b"|ms |h |d |s |m |x | |c|@0.5 |c|@0.3 |ms|@0.1 |ms|@0.3 |g|@0.5 |c|@0 |c|@").split(
            b" "
        ),
        *b"|c|@1e-9 |c@0.1 |c|#t:1 |c|#a,b |c|#b,a |g|#b,a |g|#a,b |ms|#:v |c|| |c|zz |g|zz|zz".split(b" "),
        *b"|c|T1656581400 |g|T1656581390 |s|T1656581390 |c|T1 |c|Tx |c:2|ms |c|@0.5:3|c |g:+2|g|#t".split(
            b" "
        ),
        *(b"", b"|c\r", b"|ms|#t\r", b"|c|c:id", b"|c|#a:1|#b:2", b"|c|#" + b"t," * 9 + b"t"),
    ]
)
METRIC = st.tuples(NAMES, st.just(b":"), VALUES, TAILS).map(b"".join)
OTHER = st.sampled_from(
    [
        *b"_e{1,1}:a|b _e{9,9}:a|b _e{1:1|c _sc|a|0 _sc|a|9 _sc|a|1|m:x|y : :: | bare s:a:b|s s:|s".split(
            b" "
        ),
        *(b"_e{3,1}:a\nb|c", b"", b"\r", b"s:\xff|s", b"y" * 300, b"l:1|c|#" + b"l" * 300),
    ]
)
DATA = st.lists(st.one_of(METRIC, METRIC, METRIC, OTHER, st.binary(max_size=8)), max_size=12).map(b"\n".join)
STEPS = st.lists(
    st.tuples(DATA, st.sampled_from([0, 1]), st.sampled_from([0.0, 0.0, 0.5, 4.0, 11.0, 25.0, -3.0, -40.0])),
    min_size=1,
    max_size=8,
)
LIMITS = st.builds(
    Limits,
    series=st.sampled_from([2, 5, 1000]),
    series_per_metric=st.sampled_from([1, 3, 1000]),
    tags=st.sampled_from([2, 64]),
    name=st.sampled_from([8, 256]),
    line=st.just(256),
    heads=st.sampled_from([1, 4, 1000]),
    set_members=st.sampled_from([1, 2, 100]),
    samples=st.sampled_from([1, 3, 200]),
    samples_per_window=st.sampled_from([1, 5, 200_000]),
    events=st.sampled_from([1, 100]),
)


class Seen:
    """All that one engine gives for some steps."""

    def __init__(self, engine: PureEngine, steps: list[tuple[bytes, int, float]]) -> None:
        for one in PROFILES:
            engine.add_profile(one)
        self.points: dict[Any, Any] = {}
        self.lines: list[int] = []
        self.series: list[int] = []
        self.events: list[Any] = []
        now = NOW
        for data, profile, seconds in steps:
            now += seconds
            self.lines.append(engine.ingest(profile, data, ("127.0.0.1", 1), now))
            self.series.append(engine.series)
            if seconds:
                self.read(engine.flush(now))
        self.read(engine.close(now))
        self.rejected, self.odd, self.limit_hits = engine.rejected, engine.odd, engine.limit_hits
        self.refused = Counter(engine.refused)

    def read(self, intervals: list[Any]) -> None:
        """Takes all points; sets of one window that came in parts are put together."""
        for interval in intervals:
            self.events += [*interval.events, *interval.checks]
            for window, chunk in interval.chunks(3):
                for point in chunk:
                    key = (window.start, point.series.key, len(self.series))
                    match point:
                        case CounterPoint():
                            self.points[key] = point.value
                        case GaugePoint():
                            self.points[key] = (repr(point.value), repr(point.move), point.at)
                        case TimerPoint():
                            self.points[key] = (point.sketch, point.samples.tobytes())
                        case SetPoint():
                            self.points[key] = self.points.get(key, frozenset()) | frozenset(point.members)


def same_points(native: dict[Any, Any], python: dict[Any, Any]) -> None:
    """Bit for bit: sums are exact until they are weighed, whatever the order of their terms."""
    assert native.keys() == python.keys()
    for key, expected in python.items():
        assert (type(native[key]), native[key]) == (type(expected), expected), key


def compared(steps: list[tuple[bytes, int, float]], limits: Limits, **options: Any) -> Seen:
    """Feeds both engines; what the compiled one gave."""
    python = Seen(ENGINES["python"](NOW, limits=limits, **options), steps)
    native = Seen(ENGINES["native"](NOW, limits=limits, **options), steps)
    assert native.lines == python.lines
    assert native.rejected == python.rejected
    assert native.odd == python.odd
    # Beyond the limit of heads the engine in Python finds a head again until the window ends.
    heads = native.limit_hits.pop("heads", 0), python.limit_hits.pop("heads", 0)
    assert heads[0] >= heads[1]
    assert bool(heads[0]) == bool(heads[1])
    assert native.limit_hits == python.limit_hits
    assert native.refused == python.refused
    assert native.series == python.series
    assert native.events == python.events
    same_points(native.points, python.points)
    return native


@settings(max_examples=400, deadline=None)
@given(STEPS, LIMITS, st.sampled_from([20, 3600]))
def test_both_engines_give_the_same(
    steps: list[tuple[bytes, int, float]], limits: Limits, idle_expiry: int
) -> None:
    """Points, counts by reason, refused lines, series, events; whatever the limits and the clock do."""
    compared(steps, limits, idle_expiry=idle_expiry)


# ---------------------------------------------------------------------- sketches


def encoded(values: list[float], rate: str = "") -> bytes:
    """The sketch that the compiled engine makes of samples."""
    engine = ENGINES["native"](NOW)
    engine.add_profile(Profile())
    for start in range(0, len(values), 100):
        packed = ":".join(map(repr, values[start : start + 100]))
        engine.ingest(0, f"t:{packed}|ms{rate}".encode(), "test", NOW)
    assert not engine.rejected
    ((point,),) = [points for one in engine.close(NOW) for _, points in one.chunks(10)]
    assert isinstance(point, TimerPoint)
    return point.encoded


def reference(values: list[float], weight: float = 1.0) -> bytes:
    """What Python makes of them."""
    sketch = Sketch()
    sketch.add(values, weight)
    return sketch.encode()


def test_each_value_falls_into_the_bin_that_python_finds() -> None:
    """At every bound, just below and just above it, on both sides of zero, and far beyond the last ones."""
    edges = [math.nextafter(bound, to) for bound in BOUNDS for to in (-math.inf, bound, math.inf)]
    edges += [0.0, 5e-324, 2.0**-1022, 1e-200, 2.0**65, 1e300, sys.float_info.max]
    for values in (edges, [-value for value in edges]):
        for start in range(0, len(values), 500):  # so that a bin too far shows as another count
            some = values[start : start + 500]
            assert encoded(some) == reference(some)
    one_by_one = [
        BOUNDS[0],
        BOUNDS[1],
        math.nextafter(BOUNDS[1], 0),
        BOUNDS[-1],
        math.nextafter(BOUNDS[-1], 0),
    ]
    for value in one_by_one:
        assert encoded([value]) == reference([value])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    st.sampled_from([1, 1, 7, 400]),
    st.sampled_from([("", 1.0), ("|@0.1", 10.0), ("|@1e-9", 1e9)]),
)
def test_a_sketch_has_the_bytes_that_python_gives_it(
    values: list[float], times: int, rate: tuple[str, float]
) -> None:
    """Bins, extremes, and the sum rounded once, whatever cancels out, folded early or not."""
    many = values * times
    assert encoded(many, rate[0]) == reference(many, rate[1])


def test_raw_samples_are_shared_by_all_timers_of_a_window() -> None:
    """The bound over all timers holds in both engines; each keeps one, and what is not kept is counted."""
    lines = b"\n".join(b"t%d:1:2:3:4:5:6|ms" % n for n in range(10))
    for bound, each in ((60, 6), (59, 5), (30, 3), (3, 1)):
        for name in ("native", "python"):
            engine = ENGINES[name](NOW, limits=Limits(samples_per_window=bound))
            engine.add_profile(Profile())
            engine.ingest(0, lines, "test", NOW)
            points = [one for interval in engine.close(NOW) for _, some in interval.chunks(4) for one in some]
            assert len(points) == 10
            for point in points:
                assert isinstance(point, TimerPoint)
                assert list(point.samples) == [1, 2, 3, 4, 5, 6][6 - each :]
                assert point.sketch.count == 6
            assert engine.limit_hits["samples"] == 10 * (6 - each)


# ---------------------------------------------------------------------- reader threads


class Fed:
    """A compiled engine with a reader thread at one end of a pair of datagram sockets."""

    def __init__(
        self,
        limits: Limits | None = None,
        profiles: list[Profile] = PROFILES,
        flush_interval: int = 1_000_000,
    ) -> None:
        self.engine = ENGINES["native"](time.time(), limits=limits, flush_interval=flush_interval)
        for profile in profiles:
            self.engine.add_profile(profile)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._to: list[socket.socket] = []
        self._from: list[socket.socket] = []
        self.readers = [self._reader(number) for number in range(len(profiles))]

    def _reader(self, profile: int) -> Reader:
        to, come_from = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._to.append(to)
        self._from.append(come_from)
        reader = self.engine.reader(come_from.fileno(), self._wake, profile, 2**20)
        assert reader is not None
        return reader

    def send(self, data: bytes, profile: int = 0) -> None:
        """Sends one datagram and waits until the thread has taken it."""
        before = self.readers[profile].counts()[0]
        self._to[profile].send(data)
        while self.readers[profile].counts()[0] == before:
            time.sleep(0.0001)

    def settle(self) -> None:
        """Reads all that waits."""
        while self.engine.settle(100):
            pass

    @property
    def lines(self) -> int:
        """Lines received, settled ones included."""
        return sum(reader.counts()[2] for reader in self.readers) + self.engine.settled.total()

    def close(self) -> dict[str, Any]:
        """{series key: point}; ends the threads."""
        for reader in self.readers:
            reader.close()
        for sock in (*self._to, *self._from):
            sock.close()
        os.close(self._wake)
        found: dict[str, Any] = {}
        for interval in self.engine.close(time.time()):
            for _, points in interval.chunks(10):
                found |= {point.series.key: point for point in points}
        return found


def test_values_of_heads_that_python_has_not_read_wait_and_are_added() -> None:
    """While Python reads nothing, each new head gathers; then all of it is there, at its weight."""
    fed = Fed()
    for _ in range(3):
        fed.send(
            b"a:1|c\na:0.5|c\na:2|c|@0.5\nt:5|ms|@0.1\nt:7:8|ms\ns:x|s\ns:y|s\ng:4|g\ng:+1|g\nm:-2|g\no:1|c||"
        )
    assert fed.engine.series == 0
    fed.settle()
    assert fed.engine.series == 6
    fed.send(b"a:1|c\ng:+1|g\no:1|c||")
    assert fed.lines == 36
    assert fed.engine.odd == {"unknown_field": 6}
    found = fed.close()
    assert found["ca"].value == 3 * (1 + 0.5 + 4) + 1
    assert (found["tt"].sketch.count, found["tt"].sketch.sum) == (36, 195)
    assert sorted(found["ss"].members) == [b"x", b"y"]
    assert (found["gg"].value, found["gm"].value, found["gm"].move) == (6, None, -6)
    assert found["co"].value == 4
    assert fed.engine.odd == {"unknown_field": 8}
    assert fed.engine.rejected == {}


def test_the_gauge_that_comes_last_wins_while_its_spellings_wait() -> None:
    """Waiting cells know when they were set: the order of arrival holds, not that of reading."""
    for order in itertools.permutations([b"g:1|g|#a,b", b"g:2|g|#b,a", b"g:3|g|#a,b|c:x"]):
        for known in range(3):
            fed = Fed()
            for line in order[:known]:
                fed.send(line.replace(b"g:", b"g:9"))
            fed.settle()
            fed.send(b"\n".join(order))
            fed.settle()
            assert fed.close()["gg|#a,b"].value == int(order[-1][2:3])


def test_all_lines_of_a_refused_head_count_though_they_waited() -> None:
    """Refused when Python reads the head: each line that came meanwhile is counted, and those that follow."""
    fed = Fed(Limits(series=1))
    fed.send(b"a:1|c\n" + b"\xff:1|c\n" * 5 + b"b:1|c\n" * 4 + b"bad\n_e{1,1}:a|b\na:1|c")
    fed.settle()
    fed.send(b"\xff:1|c\nb:2|c\na:1|c")
    fed.settle()
    found = fed.close()
    assert {key: point.value for key, point in found.items()} == {"ca": 3}
    assert fed.engine.rejected == {"invalid_utf8": 6, "cardinality": 5, "no_value": 1}
    assert fed.engine.limit_hits == {"series": 5}
    assert fed.engine.refused[0].line == "\\\\xff:1|c"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(DATA.filter(bool), st.sampled_from([0, 1])), min_size=1, max_size=5), st.booleans())
def test_a_reader_gives_what_ingest_gives(datagrams: list[tuple[bytes, int]], settled: bool) -> None:
    """All but the order among spellings of a gauge and of a timer, when Python reads late."""
    fed = Fed()
    other = ENGINES["python"](time.time(), flush_interval=1_000_000)
    for one in PROFILES:
        other.add_profile(one)
    counted = 0
    for data, profile in datagrams:
        fed.send(data, profile)
        if settled:
            fed.settle()
        counted += other.ingest(profile, data, "", time.time())
    fed.settle()
    assert fed.lines == counted
    found = fed.close()
    expected: dict[str, Any] = {}
    for interval in other.close(time.time()):
        for _, points in interval.chunks(10):
            expected |= {point.series.key: point for point in points}
    assert found.keys() == expected.keys()
    assert (fed.engine.rejected, fed.engine.odd) == (other.rejected, other.odd)
    for key, point in expected.items():
        match point:
            case CounterPoint():
                assert found[key].value == pytest.approx(point.value, rel=1e-12)
            case TimerPoint():
                assert found[key].sketch.positive == pytest.approx(point.sketch.positive)
                assert sorted(found[key].samples) == sorted(point.samples)
            case SetPoint():
                assert set(found[key].members) == set(point.members)


def test_a_flood_of_names_is_refused_and_known_series_go_on() -> None:
    """Names beyond what may wait are refused and counted; memory does not follow them."""
    fed = Fed()
    fed.send(b"known:1|c")
    fed.settle()
    names = 0
    while names < 150_000:
        fed.send(b"\n".join(b"flood.%d:1|c" % (names + n) for n in range(1000)) + b"\nknown:1|c")
        names += 1000
    fed.settle()
    found = fed.close()
    assert found.pop("cknown").value == 151
    assert sum(point.value for point in found.values()) + fed.engine.rejected["overload"] == 150_000
    assert fed.lines == 150_151


GOOD = [b"a:1|c"] * 63  # with one more a full batch


@pytest.mark.parametrize(
    ("datagrams", "known"),
    [
        ([b"bad", *GOOD, *GOOD, b"bad", b"bad"], [True, True, True]),
        ([b"good:1|c", *GOOD, *GOOD, b"bad", *GOOD, b"bad"], [False, True]),
        ([b"good:1|c", *GOOD, *GOOD, b"new:1|c", *GOOD, b"bad", b"bad"], [False, True]),
    ],
)
def test_senders_are_asked_for_unless_all_goes_well_under_full_load(
    datagrams: list[bytes], known: list[bool]
) -> None:
    """A refused line has no sender only where full batches without any refused line came before it."""
    fed = Fed()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    for data in datagrams:
        sender.send(data)
    reader = fed.engine.reader(receiver.fileno(), -1, 0, 2**20)
    assert reader is not None
    while reader.counts()[0] < len(datagrams):
        time.sleep(0.001)
    fed.settle()
    reader.close()
    address = "127.0.0.1:{1}".format(*sender.getsockname())
    assert [one.sender for one in fed.engine.refused] == [address if asked else "unknown" for asked in known]
    fed.close()
    sender.close()
    receiver.close()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 80), st.integers(0, 40), st.sampled_from([b"1", b"22", b"1.5", b"123456789012"])
        ),
        min_size=1,
        max_size=40,
    )
)
def test_names_and_tags_of_every_length_are_told_apart(lines: list[tuple[int, int, bytes]]) -> None:
    """Text is split, hashed and compared in blocks; wherever their edges fall, nothing changes."""
    data = b"\n".join(
        bytes(97 + n % 7 for n in range(name)) + b":" + value + b"|c|#" + b"t" * (1 + tags)
        for name, tags, value in lines
    )
    compared([(data, 0, NOW), (data, 0, NOW)], Limits(line=8192))


def test_datagrams_are_received_while_python_holds_the_gil() -> None:
    """Another process sends while no Python code of this one can run; all of it is counted."""
    fed = Fed()
    fed.send(b"a:1|c")
    fed.settle()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    reader = fed.engine.reader(receiver.fileno(), -1, 0, 2**20)
    assert reader is not None
    code = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    code += "for _ in range(50): s.sendto(b'a:1|c', ('127.0.0.1', int(sys.argv[1])))"
    with subprocess.Popen([sys.executable, "-c", code, str(receiver.getsockname()[1])]) as sender:
        hold = ctypes.PyDLL(None).poll  # a PyDLL, unlike a CDLL, keeps the GIL
        end = time.monotonic() + 20
        while reader.counts()[0] < 50 and time.monotonic() < end:
            hold(None, 0, 300)  # milliseconds
        assert sender.wait() == 0
    reader.close()
    receiver.close()
    assert reader.counts()[:3] == (50, 250, 50)
    assert fed.close()["ca"].value == 51


def test_each_window_gets_its_own_values_while_python_is_held_up() -> None:
    """The thread keeps the time: what came in a second is in that window, however late the flush is."""
    fed = Fed(flush_interval=1)
    fed.send(b"a:0|c")
    fed.settle()
    expected: Counter[int] = Counter()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        second = int(time.time())
        fed.send(b"a:1|c\na:2|c")
        if int(time.time()) == second:
            expected[second] += 3
        time.sleep(0.02)
    fed.settle()
    found: Counter[int] = Counter()
    for interval in fed.engine.flush(time.time() + 1):
        for window, points in interval.chunks(10):
            assert window.end - window.start == 1
            for point in points:
                assert isinstance(point, CounterPoint)
                found[window.start] += int(point.value)
    assert len(found) >= 3
    assert not expected - found, (expected, found)
    assert fed.close() == {}


class Restless(threading.Thread):
    """Sends known, new, odd and refused lines to a UDP port until it is told to stop."""

    LINES = 27

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:
            while not self.over.wait(0.0002):
                number += 1
                new = b"new.%d:1|c\nt:%d|ms\ns:%d|s\ng:+1|g\nhits:1e0|c\nhits:1|c|#\nbad" % ((number,) * 3)
                to.sendto(b"hits:1|c\n" * 20 + new, ("127.0.0.1", self._port))


def test_python_may_call_anything_while_the_thread_receives() -> None:
    """Flushes, settling, counts and a close at any moment: each line received is counted once or refused.

    Under ThreadSanitizer (`make tsan`) this is where a race between the two would show.
    """
    fed = Fed(Limits(series=300, heads=400, set_members=50), profiles=PROFILES[:1], flush_interval=1)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    reader = fed.engine.reader(receiver.fileno(), -1, 0, 2**20, (b"", b"", 1e9))
    assert reader is not None
    fed.readers.append(reader)
    restless = Restless(receiver.getsockname()[1])
    restless.start()
    totals: Counter[str] = Counter()

    def read(intervals: list[Any]) -> None:
        for interval in intervals:
            for _, points in interval.chunks(50):
                totals.update({one.series.name: one.value for one in points if isinstance(one, CounterPoint)})

    now = time.time()
    for turn in range(200):
        read(fed.engine.flush(now + turn / 10))
        fed.engine.settle(50)
        fed.engine.ingest(0, b"mine:1|c", "", now + turn / 10)
        assert fed.engine.series <= 300
        assert reader.drops()[1:] == ([], 0)
        assert not reader.ended
        time.sleep(0.001)
    reader.close()  # while datagrams come
    restless.over.set()
    restless.join()
    fed.settle()
    read(fed.engine.close(now + 1000))
    datagrams, _, lines, _, errors = reader.counts()
    assert datagrams > 100
    assert errors == 0
    assert lines + fed.engine.settled.total() == datagrams * Restless.LINES
    refused = fed.engine.rejected
    assert totals.pop("hits") == datagrams * 22
    assert totals.pop("mine") == 200
    assert totals.total() + refused["cardinality"] + refused["no_value"] == datagrams * 2
    receiver.close()
    fed.close()
