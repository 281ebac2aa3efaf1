"""The load generator against real sockets: what it says it sent is what arrives."""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import DaemonProcess

import benchmarks.compare
from benchmarks import load, payload, peers, process
from benchmarks.contestants import Contestant, Running, Workload, everyone
from benchmarks.contestants.bare import Bare
from benchmarks.contestants.base import child, free_port, wait_for
from benchmarks.contestants.graphite import graphite
from benchmarks.counters import (
    CollectorCounter,
    EtsyCounter,
    KernelCounter,
    NetdataCounter,
    NoCounter,
    Reading,
    counter,
)
from benchmarks.errors import BenchmarkError
from benchmarks.measuring import Result, measure
from benchmarks.native import compiler, program
from benchmarks.payload import DATAGRAM, Load
from benchmarks.report import as_json, markdown
from benchmarks.rounds import compare
from benchmarks.sending import Packets, Sending, Sent
from benchmarks.target import Target

ROOT = Path(__file__).resolve().parent.parent
SCHEMES = ("udp", "tcp", "unixgram", "unixstream")
STREAMS = ("tcp", "unixstream")


def _why_not() -> str:
    if not sys.platform.startswith("linux"):
        return "the benchmarks read /proc"
    try:
        program("sender")
    except BenchmarkError as error:
        return error.problem
    return ""


WHY_NOT = _why_not()
needs_sender = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


# ------------------------------------------------------------------ payload


def test_the_same_load_is_the_same_bytes() -> None:
    """Every program and every run sends the same; another seed sends something else."""
    first, second = (list(payload.packets(Load(), stream=False)) for _ in range(2))
    assert first == second
    assert first != list(payload.packets(Load(seed=1), stream=False))


@pytest.mark.parametrize("size", [1, 100, DATAGRAM, 8192])
def test_packets_keep_to_their_size(size: int) -> None:
    """No packet is longer, but for a line that is longer by itself, and no line is lost or cut."""
    packets = list(payload.packets(Load(size=size), stream=False))
    assert all(len(packet) <= size or b"\n" not in packet for packet in packets)
    lines = [line.decode() for packet in packets for line in packet.split(b"\n")]
    assert lines == payload.mixed(1000, Load(size=size).lines)


def test_each_series_comes_and_keeps_its_kind_and_tags() -> None:
    """The mix is one of series; each is in the first lines once."""
    lines = payload.mixed(1000, 20_000, tags=4)
    heads = [re.sub(r":[^|]*", "", line, count=1) for line in lines]
    assert len(set(heads[:1000])) == len(set(heads)) == 1000
    assert all(line.count(",") == 3 for line in lines)
    kinds = collections.Counter(head.split("|")[1] for head in set(heads))
    for kind, share in zip(("c", "ms", "g", "s"), payload.MIXED, strict=True):
        assert abs(kinds[kind] / 10 - share) < 3


def test_over_a_stream_each_packet_ends_with_a_newline() -> None:
    """Else the last line of one would run into the first of the next."""
    assert all(packet.endswith(b"\n") for packet in payload.packets(Load(), stream=True))


# ------------------------------------------------------------------ targets and counters


@pytest.mark.parametrize(
    ("text", "shown", "local", "stream"),
    [
        ("udp://127.0.0.1:9125", "udp://127.0.0.1:9125", True, False),
        ("udp://127.0.0.1", "udp://127.0.0.1:8125", True, False),
        ("tcp://[::1]:8125", "tcp://[::1]:8125", True, True),
        ("udp://192.0.2.1:8125", "udp://192.0.2.1:8125", False, False),
        ("unixgram:///run/statsd.sock", "unixgram:///run/statsd.sock", True, False),
        ("unixstream:///run/statsd.sock", "unixstream:///run/statsd.sock", True, True),
    ],
)
def test_targets(text: str, shown: str, local: bool, stream: bool) -> None:
    """A URL says the kind of socket, and whether anything leaves this machine."""
    target = Target.parse(text)
    assert (str(target), target.local, target.stream) == (shown, local, stream)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:8125",
        "http://127.0.0.1",
        "udp://",
        "udp://h:99999",
        "udp://127.0.0.1/x",
        "unixstream://run/x",
    ],
)
def test_what_is_no_target_says_how_to_write_one(text: str) -> None:
    """With an example."""
    with pytest.raises(BenchmarkError) as caught:
        Target.parse(text)
    assert "udp://127.0.0.1:8125" in caught.value.remedy


def test_another_machine_is_refused_unless_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A load can bring a network down; the refusal names the switch."""
    assert load.main(["udp://192.0.2.1:8125", "--seconds", "0.1"]) == 1
    assert "--yes-send-there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--seconds", "601"), ("--seconds", "nan"), ("--lines", "-1"), ("--series", "0"), ("--tags", "5")),
        *(("--mix", "50,50,10,10"), ("--mix", "100"), ("--size", "70000"), ("--connections", "257")),
        ("--rate", "-1"),
    ],
)
def test_bounds_are_usage_errors(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each names its option, before anything is sent."""
    with pytest.raises(SystemExit) as caught:
        load.main(["udp://127.0.0.1:8125", option, value])
    assert caught.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "etsy", "etsy=localhost", "collector", "kernel=1", "statsite=x"])
def test_an_unknown_counter_says_which_there_are(text: str) -> None:
    """All of them."""
    with pytest.raises(BenchmarkError) as caught:
        counter(text, Target("tcp", "127.0.0.1", 1))
    assert "etsy=HOST:PORT" in caught.value.remedy


def test_the_kernel_says_who_listens_and_what_it_dropped() -> None:
    """Found by address in /proc, also where a socket is bound to all addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.bind(("0.0.0.0", 0))
        target = Target("udp", "127.0.0.1", sock.getsockname()[1])
        assert process.owner(target) == os.getpid()
        before = KernelCounter(target).read()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(100):
                sender.sendto(b"x" * 1000, ("127.0.0.1", target.port))
        drops = KernelCounter(target).read().since(before).drops
        assert drops is not None and 0 < drops < 100
        (found,) = process.bound_sockets(target)
        assert found.queued > 0
    assert process.owner(target) is None
    with pytest.raises(BenchmarkError):
        KernelCounter(target)


@pytest.mark.parametrize("scheme", ["unixstream", "unixgram"])
def test_the_owner_of_a_unix_socket_is_found(scheme: str, tmp_path: Path) -> None:
    """By its path."""
    kind = socket.SOCK_STREAM if scheme == "unixstream" else socket.SOCK_DGRAM
    target = Target(scheme, path=str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(target.path)
        if scheme == "unixstream":
            sock.listen()
        assert process.owner(target) == os.getpid()


def test_the_admin_port_of_etsy_is_read() -> None:
    """As Node prints an object, with and without quotes, up to END."""
    answer = b"{ 'statsd.bad_lines_seen': 2,\n  'statsd.metrics_received': 41,\n  'app.x': 1 }\nEND\n\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100) == b"counters\n"
                connection.sendall(answer)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        assert EtsyCounter(*server.getsockname()).read() == Reading(lines=41, refused=2)
        thread.join()


def test_graphite_adds_up_what_it_watches() -> None:
    """Wherever the lines are cut, and nothing else."""
    with graphite("a.b") as sink, socket.create_connection(("127.0.0.1", sink.port)) as connection:
        for part in (b"x 5 1\na.b 3 1\na", b".b 4", b" 1\nx 1 1\n" + b"y 1 1\n" * 1000 + b"a.b 1 2\n"):
            connection.sendall(part)
        _wait(lambda: sink.total == 8)


# ------------------------------------------------------------------ the sender


@contextmanager
def receiving(scheme: str, directory: Path) -> Iterator[tuple[Target, list[bytes]]]:
    """A server in this process: its target, and what it has received (of a stream: whole connections)."""
    family = socket.AF_UNIX if scheme.startswith("unix") else socket.AF_INET
    stream = scheme in STREAMS
    path = str(directory / f"{scheme}.sock")
    received: list[bytes] = []
    stop = threading.Event()
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(path if family == socket.AF_UNIX else ("127.0.0.1", 0))
        sock.settimeout(0.1)
        if stream:
            sock.listen()

        def serve() -> None:
            while not stop.is_set():
                try:
                    if stream:
                        with sock.accept()[0] as connection:
                            received.append(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
                    else:
                        received.append(sock.recv(1 << 16))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        target = (
            Target(scheme, path=path)
            if family == socket.AF_UNIX
            else Target(scheme, "127.0.0.1", sock.getsockname()[1])
        )
        try:
            yield target, received
        finally:
            stop.set()
            thread.join()


def _wait(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("waited in vain")


@pytest.fixture
def small() -> Iterator[Callable[..., Packets]]:
    """Makes packets, and removes their files."""
    made: list[Packets] = []

    def make(stream: bool, size: int = DATAGRAM) -> Packets:
        made.append(Packets(Load(size=size), stream=stream))
        return made[-1]

    yield make
    for one in made:
        one.close()


@needs_sender
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("size", [1, DATAGRAM, 8192])
def test_what_was_sent_arrives(scheme: str, size: int, tmp_path: Path, small: Callable[..., Packets]) -> None:
    """Packet by packet, in order, at a rate that the receiver can follow; the count stops it in time."""
    expected = list(payload.packets(Load(size=size), stream=scheme in STREAMS))
    packets = small(scheme in STREAMS, size=size)
    with receiving(scheme, tmp_path) as (target, received):
        sent = packets.send(target, Sending(seconds=20, rate=40_000, lines=10_000))
        _wait(lambda: len(b"".join(received)) == sent.bytes)
    expected = expected[: sent.packets]
    assert received == ([b"".join(expected)] if scheme in STREAMS else expected)
    text = b"".join(part if part.endswith(b"\n") else part + b"\n" for part in received)
    assert text.count(b"\n") == sent.lines
    assert 10_000 <= sent.lines < 10_000 + 8192 // 30
    assert sent.seconds > 0.2  # not faster than the rate; how much slower is the machine's matter


@needs_sender
@pytest.mark.parametrize("scheme", STREAMS)
def test_at_full_speed_a_stream_is_cut_nowhere(
    scheme: str, tmp_path: Path, small: Callable[..., Packets]
) -> None:
    """Round after round, over several connections; each ends with a whole line."""
    packets = small(True)
    with receiving(scheme, tmp_path) as (target, received):
        sent = packets.send(target, Sending(seconds=0.3))
        _wait(lambda: sum(map(len, received)) == sent.bytes)
    (data,) = received
    assert data.count(b"\n") == sent.lines
    whole = b"".join(payload.packets(Load(), stream=True))
    times, rest = divmod(len(data), len(whole))
    assert data == whole * times + whole[:rest]


@needs_sender
def test_segments_are_the_same_datagrams(small: Callable[..., Packets], tmp_path: Path) -> None:
    """The kernel cuts them apart again: none is longer or other than those that were made."""
    packets = small(False)
    with receiving("udp", tmp_path) as (target, received):
        sent = packets.send(target, Sending(seconds=0.3))
    assert received
    assert set(received) <= set(payload.packets(Load(), stream=False))
    assert sent.packets >= len(received)


@needs_sender
def test_a_server_that_is_not_there(small: Callable[..., Packets], tmp_path: Path) -> None:
    """Is an error with the address in it, whatever the kind of socket."""
    for target in (
        Target("udp", "127.0.0.1", free_port()),
        Target("tcp", "127.0.0.1", free_port()),
        Target("unixgram", path=str(tmp_path / "none")),
    ):
        packets = small(target.stream)
        with pytest.raises(BenchmarkError, match=re.escape(str(target))):
            packets.send(target, Sending(seconds=0.5))


@needs_sender
def test_a_server_that_closes_the_connection(small: Callable[..., Packets]) -> None:
    """Is told, not counted as sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("tcp", *server.getsockname())

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(BenchmarkError, match="closed the connection"):
            small(True).send(target, Sending(seconds=5))
        thread.join()


# ------------------------------------------------------------------ compiling


def test_without_a_compiler_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which ones were looked for, and what to install."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(BenchmarkError) as caught:
        program("sender")
    assert "cc, gcc and clang" in caught.value.problem
    assert "apt-get install" in caught.value.remedy


@needs_sender
def test_a_program_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And kept in the cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = program("bare")
    before = made.stat()
    assert program("bare").stat().st_mtime_ns == before.st_mtime_ns
    assert list((tmp_path / "collector-benchmarks").iterdir()) == [made]


@needs_sender
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what it said, and nothing is left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", f"{compiler()[0]} -include nowhere.h")
    with pytest.raises(BenchmarkError, match=r"nowhere\.h"):
        program("sender")
    assert not list((tmp_path / "collector-benchmarks").iterdir())


@needs_sender
@pytest.mark.parametrize("name", ["sender", "bare"])
def test_the_c_programs_compile_without_a_warning(name: str, tmp_path: Path) -> None:
    """With all that the compiler can find."""
    source = ROOT / "benchmarks" / "native" / f"{name}.c"
    options = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [*compiler(), *options, "-o", str(tmp_path / name), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ runs


@needs_sender
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_bare_loop_counts_every_line(scheme: str, tmp_path: Path, small: Callable[..., Packets]) -> None:
    """The yardstick must not be short: all that was sent at a modest rate is in its count."""
    packets = small(scheme in STREAMS)
    with Bare().start(tmp_path, scheme) as running:
        how = Sending(seconds=20, rate=200_000, lines=100_000, connections=3)
        result = measure(packets, running.target, how, running.counter, running.pid)
    assert result.settled
    assert result.lost_lines == 0
    assert result.received_lines == result.sent.lines
    assert result.lines_per_cpu_second is not None and result.lines_per_cpu_second > 0
    if scheme in STREAMS:
        assert result.received_packets is None
    else:
        assert result.received_packets == result.sent.packets


@needs_sender
def test_what_the_kernel_dropped_is_lost(tmp_path: Path, small: Callable[..., Packets]) -> None:
    """At full speed into a socket that nobody reads: the queue's content arrived, no more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        target = Target("udp", *sock.getsockname())
        result = measure(
            small(False, size=1), target, Sending(seconds=0.3), KernelCounter(target), None, settle=1
        )
        sock.setblocking(False)
        held = 0
        while True:
            try:
                sock.recv(1 << 16)
            except BlockingIOError:
                break
            held += 1
    assert not result.settled  # the queue was never read
    assert result.estimated
    assert result.received_lines == held
    assert result.lost_lines == result.sent.lines - held
    assert result.cpu_seconds is None and result.lines_per_cpu_second is None


@needs_sender
def test_the_command_against_a_daemon(
    daemon: DaemonProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent is received, by the daemon's own counter; its process is found by its socket; stdout is JSON."""
    port = daemon.port("tcp")
    options = ["--rate", "20000", "--lines", "20000", "--seconds", "20", "--tags", "4", "--json"]
    assert load.main([f"tcp://127.0.0.1:{port}", "--counter", f"collector={daemon.url}", *options]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert output.err == ""  # no bar: nobody watches
    assert result["sent"]["lines"] == result["received"]["lines"] >= 20_000
    assert result["received"]["refused_lines"] == 0
    assert result["lost"] == {"lines": 0, "share": 0.0}
    assert result["server"]["pid"] == daemon.process.pid
    assert result["server"]["lines_per_cpu_second"] > 0
    assert result["load"]["tags"] == 4


@needs_sender
def test_the_command_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: figures with their units, and where they come from."""
    with receiving("udp", tmp_path) as (target, _):
        assert load.main([str(target), "--rate", "1000", "--lines", "100"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"sent +1\d\d lines in \d+ packets", told)
    assert re.search(r"lost +0 lines, 0\.00%", told)
    assert "lines per CPU-second" in told
    with receiving("unixstream", tmp_path) as (target, _):
        assert load.main([str(target), "--rate", "1000", "--lines", "100"]) == 0
    assert "unknown: --counter names ways to ask the server" in capsys.readouterr().out


def test_a_counter_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent."""
    options = ["--counter", f"collector=http://127.0.0.1:{free_port()}"]
    assert load.main(["udp://127.0.0.1:1", *options]) == 1
    assert "no answer from http://127.0.0.1" in capsys.readouterr().err


def test_the_bar_is_for_terminals_only() -> None:
    """On a terminal it grows on stderr; stdout stays data."""
    code = "from benchmarks.progress import bar; b = bar(10); b and b(5.0, 5_000_000)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stderr == b""
    leader, follower = os.openpty()
    try:
        subprocess.run(command, cwd=ROOT, stderr=follower, check=True)
        shown = os.read(leader, 1000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert " 50%  5,000,000 lines, 1.00 M/s" in shown


# ------------------------------------------------------------------ the docs


@pytest.mark.parametrize(
    ("parser", "section"),
    [(load.parser, "A load for any server"), (benchmarks.compare.parser, "Servers in turn")],
)
def test_the_docs_have_every_option(parser: Callable[[], argparse.ArgumentParser], section: str) -> None:
    """And no other, each in the table of its program."""
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    documented = re.findall(
        r"^\| `(--[a-z-]+)` \|", text.partition(f"## {section}\n")[2].partition("\n## ")[0], re.M
    )
    known = [one for action in parser()._actions for one in action.option_strings if one.startswith("--")]
    assert sorted(dict.fromkeys(documented)) == sorted(set(known) - {"--help"})


def test_the_docs_have_every_contestant() -> None:
    """In the table that says where they come from."""
    table = (ROOT / "docs" / "benchmarks.md").read_text().partition("| server | from |")[2]
    for one in everyone():
        assert one.name.removesuffix(" (Python)") in table


# ------------------------------------------------------------------ comparing


class _Absent(Bare):
    name = "absent"

    def missing(self) -> str | None:
        return "not installed"


class _Failing(Bare):
    name = "failing"

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        with child(
            [sys.executable, "-c", "raise SystemExit('no such option')"], directory / "log"
        ) as started:
            wait_for(started, directory / "log", lambda: False)
            yield Running(Target("udp"), 0, NoCounter())


class _Plain(Bare):
    name = "plain"
    tags = False


@needs_sender
def test_a_comparison_goes_on_without_those_that_cannot() -> None:
    """Each is in the page: with figures, or with the reason why there are none."""
    contestants: list[Contestant] = [Bare(), _Plain(), _Absent(), _Failing()]
    workloads = [Workload("plain", Load()), Workload("tagged", Load(tags=3))]
    said: list[str] = []
    how = Sending(seconds=0.2, rate=100_000)
    tables = compare(contestants, workloads, how, 2, said.append)
    first, second = tables
    assert [len(entry.results) for entry in first.entries] == [2, 2, 0, 0]
    assert [entry.skipped for entry in second.entries][1:3] == ["knows no tags", "not installed"]
    assert "no such option" in first.entries[3].skipped
    assert [one.rpartition(": ")[2] for one in said[:5]] == [
        *("receive and count (C)", "plain", "failing"),  # in turn, and once it failed no more
        *("receive and count (C)", "plain"),
    ]
    page = markdown(tables, contestants, how, 2, "the command", "2000-01-01")
    assert "## tagged" in page and "- plain: knows no tags" in page
    assert re.search(r"\| receive and count \(C\) \| [\d.]+ \([\d.]+ to [\d.]+\) \| 1\.000 \|", page)
    runs = as_json(tables)
    assert runs[0]["servers"][1]["runs"][0]["received"]["lines"] > 0


def test_a_result_without_a_counter_claims_nothing() -> None:
    """Unknown stays unknown: no loss, no figure."""
    result = Result(
        target=Target("udp", "127.0.0.1", 1),
        sent=Sent(10, 1, 100, 1.0, 0.1),
        counter="none",
        got=Reading(),
        settled=True,
        pid=None,
        server="",
        cpu_seconds=None,
        resident_bytes=None,
    )
    shown = result.as_json()
    assert shown["received"]["lines"] is None
    assert shown["lost"] == {"lines": None, "share": None}
    assert shown["server"]["lines_per_cpu_second"] is None


def test_who_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No reason is empty; the peers of the registries name the command that installs them."""
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    reasons = {one.name: one.missing() for one in everyone()}
    assert all(reason is None or reason for reason in reasons.values())
    assert reasons["statsdly (Python)"] == "not installed: python -m benchmarks.peers install"
    assert reasons["netdata"] == "not installed (Debian: netdata-core)"
    assert reasons["statsd (Node)"] == "node is not installed"


@needs_sender
@pytest.mark.parametrize("contestant", everyone()[1:], ids=lambda one: one.name)
def test_every_contestant_that_is_there_receives(
    contestant: Contestant, tmp_path: Path, small: Callable[..., Packets]
) -> None:
    """Started, loaded at a modest rate, and nothing is lost by its own count or the kernel's."""
    if why := contestant.missing():
        pytest.skip(why)
    with contestant.start(tmp_path, "udp") as running:
        assert process.owner(running.target) == running.pid
        how = Sending(seconds=20, rate=10_000, lines=10_000)
        result = measure(small(False), running.target, how, running.counter, running.pid, settle=30)
    assert result.lost_lines == 0
    assert not result.got.refused
    with pytest.raises(ProcessLookupError):
        process.cpu_seconds(running.pid)


@contextmanager
def page(body: bytes) -> Iterator[str]:
    """A server that answers one request with this text; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_a_page_that_is_no_collectors() -> None:
    """Another server's /metrics is not taken for a collector that has received nothing."""
    with page(b"up 1\n") as url, pytest.raises(BenchmarkError, match="is not a collector's"):
        CollectorCounter(url).read()


def test_the_charts_of_netdata_are_read() -> None:
    """As netdata 1.37 writes them: lines by type, the faulty ones among them, and packets."""
    figures = (
        ("events", "counters", 200),
        ("events", "gauges", 3),
        ("events", "errors", 2),
        ("packets", "udp", 100),
    )
    body = "".join(
        f'netdata_netdata_statsd_{chart}_total{{chart="netdata.statsd_{chart}",family="statsd",'
        f'dimension="{dimension}"}} {value} 1795614350427\n'
        for chart, dimension, value in figures
    )
    with page(body.encode()) as url:
        assert NetdataCounter(url).read() == Reading(lines=205, packets=100, refused=2)
