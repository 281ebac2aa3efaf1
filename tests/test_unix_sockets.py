"""Unix sockets: both kinds of framing, the socket file and its owner, and who is at the other end."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import Rig, both_loops, eventually, linux_only, listening, run

from collector.addresses import FileMode
from collector.engine import Limits
from collector.errors import OperatorError

KINDS = {"unixgram": socket.SOCK_DGRAM, "unixstream": socket.SOCK_STREAM}
both_kinds = pytest.mark.parametrize("scheme", list(KINDS))
pytestmark = pytest.mark.usefixtures("each_engine")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short name: the path of a socket is bounded by 103 bytes."""
    with TemporaryDirectory(prefix="c") as name:
        yield Path(name)


def client(path: Path, scheme: str) -> socket.socket:
    """A connected client."""
    sock = socket.socket(socket.AF_UNIX, KINDS[scheme])
    sock.connect(str(path))
    return sock


async def send_stream(path: Path, *parts: bytes, pause: float = 0.0) -> None:
    """Sends the parts over one connection and closes it."""
    with client(path, "unixstream") as sock:
        sock.setblocking(False)
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(sock, part)
            await asyncio.sleep(pause)


# ------------------------------------------------------------------ datagrams


@both_loops
def test_each_line_of_a_datagram_counts_once(loop: str, directory: Path) -> None:
    """Datagrams are whole lines, from clients with a name of their own and without one."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixgram://{path}") as rig:
            with client(path, "unixgram") as sock:
                sock.send(b"a:1|c\nb:2|c\n")
                sock.send(b"a:1|c")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
                named.bind(str(directory / "client.sock"))
                named.sendto(b"a:1|c\nX", str(path))
            await rig.lines(5)
            assert rig.totals() == {"a": 3, "b": 2}
            assert rig.engine.refused[-1].sender == str(directory / "client.sock")

    run(loop, main())


@both_loops
def test_a_datagram_larger_than_is_received_loses_its_last_line_only(loop: str, directory: Path) -> None:
    """A unix datagram may be longer than any UDP one: the line that is cut is refused, not half counted."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixgram://{path}") as rig:
            lines = b"".join(b"a:1|c|#n:%06d\n" % n for n in range(6000))
            assert len(lines) > 70_000
            with client(path, "unixgram") as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
                sock.send(lines)
            whole = lines[:65536].count(b"\n")
            await rig.lines(whole + 1)
            assert rig.totals() == {"a": whole}
            assert dict(rig.engine.rejected) == {"too_long": 1}

    run(loop, main())


@both_loops
def test_a_stop_takes_what_was_sent_and_refuses_what_comes(loop: str, directory: Path) -> None:
    """A datagram is either counted or its sender gets an error: none vanishes between the two."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixgram://{path}") as rig:
            with client(path, "unixgram") as sock:
                sock.setblocking(False)
                sent = 0
                try:
                    while sent < 5000:
                        sock.send(b"a:1|c")
                        sent += 1
                except BlockingIOError:  # the queue is full, as deep as this system has it
                    pass
                await rig.listener.drain()
                assert rig.totals() == {"a": sent}
                with pytest.raises(OSError, match=r"."):
                    sock.send(b"a:1|c")
                assert not path.exists()

    run(loop, main())


@linux_only
def test_a_short_queue_is_told_with_the_remedy(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Linux holds ten datagrams unless it is told otherwise: a burst makes clients wait, or drop."""

    async def main() -> None:
        async with listening(f"unixgram://{directory}/s.sock"):
            pass

    run("uvloop", main())
    length = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    warned = [record.message for record in caplog.records if "listener.short_queue" in record.message]
    assert len(warned) == (length < 128)
    assert all(f"datagrams={length}" in line and "max_dgram_qlen=4096" in line for line in warned)


# ------------------------------------------------------------------ streams


STREAMS: dict[str, tuple[list[bytes], dict[str, float], dict[str, int]]] = {
    "newlines": ([b"a:1|c\nb:2|c\n"], {"a": 1, "b": 2}, {}),
    "newlines, the last line open": ([b"a:1|c\nb:2|c"], {"a": 1, "b": 2}, {}),
    "a first line of two bytes": ([b"X\n", b"a:1|c\n"], {"a": 1}, {"no_value": 1}),
    "less than a header, then the end": ([b"X"], {}, {"no_value": 1}),
    "nothing": ([], {}, {}),
    "one frame": ([frame(b"a:1|c")], {"a": 1}, {}),
    "a frame of lines": ([frame(b"a:1|c\nb:2|c\n")], {"a": 1, "b": 2}, {}),
    "many frames in one write": ([frame(b"a:1|c") * 100], {"a": 100}, {}),
    "frames are not joined": ([frame(b"a:1") + frame(b"|c")], {}, {"no_type": 1, "empty_name": 1}),
    "an empty frame": ([frame(b"") + frame(b"a:1|c")], {"a": 1}, {}),
    "a header byte by byte": ([bytes([b]) for b in frame(b"a:1|c")], {"a": 1}, {}),
    "a frame of 60,000 bytes": ([frame(b"a:1|c\n" * 10_000)], {"a": 10_000}, {}),
    "a frame of 2 MB": ([frame(b"a:1|c\n" * 350_000)], {"a": 350_000}, {}),
    "a frame cut short": ([frame(b"a:1|c\nb:22|c")[:-3]], {"a": 1}, {"cut_short": 1}),
    "a line too long in a frame": ([frame(b"l" * 20_000 + b"\na:1|c")], {"a": 1}, {"too_long": 1}),
    "one so long is closed by its frame": (
        [frame(b"l" * 300_000), frame(b"a:1|c")],
        {"a": 1},
        {"too_long": 1},
    ),
}


@both_loops
@pytest.mark.parametrize("case", list(STREAMS))
def test_streams_of_either_framing(loop: str, case: str, directory: Path) -> None:
    """The first bytes of a connection tell newlines from frames; totals and refusals are as sent."""
    parts, expected, refused = STREAMS[case]

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixstream://{path}") as rig:
            await send_stream(path, *parts, pause=0.005 if len(parts) > 1 else 0)
            await rig.ended(1)
            assert rig.totals() == expected
            assert dict(rig.engine.rejected) == refused

    run(loop, main())


def test_connections_of_both_framings_share_a_socket(directory: Path) -> None:
    """jsocol's client and Datadog's may use one path."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixstream://{path}") as rig:
            await asyncio.gather(
                *(send_stream(path, *[b"a:1|c\n"] * 50, pause=0.001) for _ in range(5)),
                *(send_stream(path, *[frame(b"a:1|c")] * 50, pause=0.001) for _ in range(5)),
            )
            await rig.ended(10)
            assert rig.totals() == {"a": 500}

    run("uvloop", main())


FRAMES = b"".join(map(frame, (b"a:1|c\nb:2|c", b"", b"X", b"l" * 300 + b":1|c\na:5|c", b"c:3|c\n")))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(0, len(FRAMES)), max_size=8).map(sorted))
def test_splits_of_frames_do_not_matter(cuts: list[int]) -> None:
    """However a stream of frames is cut into reads, totals and refusals are the same."""

    async def main(path: Path) -> None:
        async with listening(f"unixstream://{path}", Limits(line=100)) as rig:
            edges = [0, *cuts, len(FRAMES)]
            parts = [FRAMES[start:end] for start, end in itertools.pairwise(edges)]
            await send_stream(path, *parts, pause=0.001)
            await rig.ended(1)
            assert rig.totals() == {"a": 6, "b": 2, "c": 3}
            assert dict(rig.engine.rejected) == {"no_value": 1, "too_long": 1}

    with TemporaryDirectory(prefix="c") as name:
        run("uvloop", main(Path(name) / "s.sock"))


@both_loops
def test_a_length_that_no_frame_has_ends_the_connection(loop: str, directory: Path) -> None:
    """Out of step, nothing that follows can be told apart: what came before counts, the end is counted."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixstream://{path}") as rig:
            with client(path, "unixstream") as sock:
                sock.sendall(frame(b"a:1|c") + b"\xff\xff\xff\xffb:1|c")
                await rig.ended(1)
                assert await asyncio.to_thread(sock.recv, 1) == b""
            assert rig.totals() == {"a": 1}
            assert rig.listener.status()["closed_connections"] == {"framing": 1}

    run(loop, main())


# ------------------------------------------------------------------ the file


@both_kinds
@pytest.mark.parametrize("mode", ["0666", "0622", "0600"])
def test_the_file_has_the_mode_that_was_asked_for(scheme: str, mode: str, directory: Path) -> None:
    """Whatever the umask: it decides who may send."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"{scheme}://{path}", mode=FileMode.parse(mode)):
            assert f"{stat.S_IMODE(path.stat().st_mode):04o}" == mode

    before = os.umask(0o077)
    try:
        run("uvloop", main())
    finally:
        os.umask(before)


@both_kinds
def test_the_directory_is_made(scheme: str, directory: Path) -> None:
    """/run is empty after a boot."""

    async def main() -> None:
        path = directory / "a" / "b" / "s.sock"
        async with listening(f"{scheme}://{path}"):
            assert stat.S_ISSOCK(path.stat().st_mode)

    run("uvloop", main())


@both_kinds
def test_a_stale_file_is_replaced(scheme: str, directory: Path) -> None:
    """A daemon that was killed leaves its file; the next one starts all the same."""

    async def main() -> None:
        path = directory / "s.sock"
        for kind in KINDS.values():
            with socket.socket(socket.AF_UNIX, kind) as old:
                old.bind(str(path))
            async with listening(f"{scheme}://{path}") as rig:
                await _one_line(rig, path, scheme)
            assert not path.exists()

    run("uvloop", main())


async def _one_line(rig: Rig, path: Path, scheme: str) -> None:
    with client(path, scheme) as sock:
        sock.send(b"a:1|c\n")
    await rig.lines(1)


@both_kinds
@pytest.mark.parametrize("owner", list(KINDS))
def test_a_live_owner_is_left_alone(scheme: str, owner: str, directory: Path) -> None:
    """Two daemons never share a path in silence, also not with sockets of different kinds."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"{owner}://{path}") as first:
            with pytest.raises(OperatorError, match="another process listens there"):
                async with listening(f"{scheme}://{path}"):
                    pass
            await _one_line(first, path, owner)

    run("uvloop", main())


@both_kinds
def test_what_is_no_socket_is_never_removed(scheme: str, directory: Path) -> None:
    """A wrong path must not cost a file."""

    async def main() -> None:
        path = directory / "precious"
        for make in (lambda: path.write_text("data"), path.mkdir, lambda: path.symlink_to(directory / "x")):
            make()
            with pytest.raises(OperatorError, match=r"precious is there and is no socket: move it away"):
                async with listening(f"{scheme}://{path}"):
                    pass
            assert path.lstat()
            path.rmdir() if path.is_dir() else path.unlink()

    run("uvloop", main())


@both_kinds
def test_a_directory_that_cannot_be_had_is_named(scheme: str, directory: Path) -> None:
    """The error says which part of the path is in the way."""

    async def main() -> None:
        (directory / "file").write_text("")
        with pytest.raises(OperatorError, match=r"file.*; choose a directory"):
            async with listening(f"{scheme}://{directory}/file/s.sock"):
                pass

    run("uvloop", main())


@both_kinds
def test_a_close_leaves_the_file_of_another_daemon(scheme: str, directory: Path) -> None:
    """Who has taken over the path keeps it."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"{scheme}://{path}") as old:
            path.unlink()
            async with listening(f"{scheme}://{path}") as new:
                await old.listener.close()
                await _one_line(new, path, scheme)

    run("uvloop", main())


@both_kinds
def test_stop_and_start_on_one_path(scheme: str, directory: Path) -> None:
    """The path is free again as soon as the listener is closed."""

    async def main() -> None:
        path = directory / "s.sock"
        for _ in range(3):
            async with listening(f"{scheme}://{path}") as rig:
                await _one_line(rig, path, scheme)

    run("uvloop", main())


def test_daemons_that_start_at_once_do_not_take_each_others_path(directory: Path) -> None:
    """Of many that find a stale file at the same moment, one gets the path and keeps it."""
    path = directory / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
        old.bind(str(path))
    code = (
        "import sys\n"
        "from collector.listeners import unix\n"
        "from collector.addresses import Address, FileMode\n"
        "from collector.errors import OperatorError\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    bound = unix.bind(Address.parse(sys.argv[1]), FileMode(0o666))\n"
        "    print('bound', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(bound.sock.recv(100))\n"
        "except OperatorError:\n"
        "    print('refused', flush=True)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"unixgram://{path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("\n")
            racer.stdin.flush()
        answers = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
        assert sorted(answers) == ["bound", "refused", "refused", "refused"]
        with client(path, "unixgram") as sock:
            sock.send(b"x")
        assert racers[answers.index("bound")].communicate("\n", timeout=30)[0] == "b'x'\n"
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


@linux_only
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@both_kinds
def test_another_user_may_send_where_the_mode_lets_him(scheme: str, directory: Path) -> None:
    """With 0622 the applications of other users send; with 0600 they are told that they may not."""
    directory.chmod(0o755)

    def send_as_nobody(path: Path) -> int:
        code = (
            "import os, socket, sys\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "sock = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1]))\n"
            "sock.connect(sys.argv[2]); sock.send(b'a:1|c')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, KINDS[scheme].name, str(path)], capture_output=True, check=False
        )
        return done.returncode

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"{scheme}://{path}", mode=FileMode(0o622)) as rig:
            assert await asyncio.to_thread(send_as_nobody, path) == 0
            await rig.lines(1)
        async with listening(f"{scheme}://{path}", mode=FileMode(0o600)):
            assert await asyncio.to_thread(send_as_nobody, path) != 0

    run("uvloop", main())


# ------------------------------------------------------------------ who is there


@linux_only
@both_kinds
def test_a_flooding_process_is_limited_and_another_one_is_not(scheme: str, directory: Path) -> None:
    """A sender at a unix socket is its process; what it sends beyond its rate is counted as `local`."""
    path = directory / "s.sock"
    code = (
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1])); sock.connect(sys.argv[2])\n"
        "for _ in range(int(sys.argv[3])): sock.send(b'%s:1|c\\n' % sys.argv[4].encode() * 10)\n"
    )

    async def send(times: int, name: str) -> None:
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, KINDS[scheme].name, str(path), str(times), name)
        )
        assert await done.wait() == 0

    async def main() -> None:
        async with listening(f"{scheme}://{path}", sender_rate=500) as rig:
            await asyncio.gather(send(3000, "flood"), send(20, "calm"))
            drops = rig.listener.senders.drops
            await eventually(
                lambda: rig.listener.lines + drops.lines.total() == 30_200, "all lines", rig.listener.status
            )
            totals = rig.totals()
            assert totals["calm"] == 200
            assert 500 <= totals["flood"] < 25_000
            assert {(reason, kind.value) for reason, kind in drops.lines} == {("sender_rate", "local")}
            assert all(name.startswith("process ") for name in drops.named)

    run("asyncio", main())


@linux_only
def test_a_refused_line_of_a_stream_names_the_process(directory: Path) -> None:
    """The operator is told who to ask."""

    async def main() -> None:
        path = directory / "s.sock"
        async with listening(f"unixstream://{path}") as rig:
            await send_stream(path, b"X\nmore\n")
            await rig.lines(2)
            assert rig.engine.refused[-1].sender == f"process {os.getpid()}"

    run("uvloop", main())
