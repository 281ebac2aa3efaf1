"""The daemon's life: start, stop, restart, kill; what is kept, what is refused, what is said."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from harness import CONFIG, DaemonProcess, running, server, wait_for

LONG_WINDOW = CONFIG.replace("flush_interval: 1s", "flush_interval: 60s")


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state not in "ZX"
    return False


def embedded_pid(daemon: DaemonProcess) -> int:
    """The process of the embedded server."""
    pid: int = daemon.get("/api/v1/status")["store"]["embedded_pid"]
    return pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_received_before_the_signal_is_lost(tmp_path: Path, number: int) -> None:
    """A stop in the middle of a window drains the sockets and flushes it; exit code 0, no server left."""
    with running(tmp_path, LONG_WINDOW) as daemon:
        pid = embedded_pid(daemon)
        port = daemon.port("udp")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(200):
                sock.sendto(b"\n".join([b"last.words:1|c"] * 20), ("127.0.0.1", port))
        with socket.create_connection(("127.0.0.1", daemon.port("tcp"))) as stream:
            stream.sendall(b"last.words:1|c\nlast.words:1|c")
            time.sleep(0.2)
            assert daemon.stop(number) == 0
        assert not alive(pid)
    with running(tmp_path, LONG_WINDOW) as again:
        assert again.value("last.words") == 200 * 20 + 2


def test_a_gauge_goes_on_from_its_value_after_a_restart(tmp_path: Path) -> None:
    """State is in the store: a move after a restart adds to what was set before it."""
    with running(tmp_path) as daemon:
        daemon.send_udp("level:10|g")
        wait_for(lambda: daemon.value("level") == 10, "the gauge")
    with running(tmp_path) as daemon:
        assert daemon.value("level") == 10
        daemon.send_udp("level:-3|g")
        wait_for(lambda: daemon.value("level") == 7, "the moved gauge")


def test_kill_leaves_no_orphan_and_what_was_flushed(tmp_path: Path) -> None:
    """`kill -9` of the daemon takes its server along; the next start has all that was flushed."""
    with running(tmp_path) as daemon:
        daemon.send_udp("kept:5|c")
        wait_for(lambda: daemon.value("kept") == 5, "the counter")
        pid = embedded_pid(daemon)
        time.sleep(1.5)  # what `appendfsync everysec` may hold back
        daemon.process.kill()
        daemon.process.wait()
        wait_for(lambda: not alive(pid), "the embedded server to end")
    with running(tmp_path) as daemon:
        assert daemon.value("kept") == 5


def test_a_second_daemon_on_one_state_directory_is_refused_by_name(tmp_path: Path) -> None:
    """It ends with code 75 and names the process and the directory; the first goes on."""
    with running(tmp_path) as first:
        second = subprocess.run(
            [sys.executable, "-m", "collector", "run", "--config", str(first.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 75
        assert str(first.process.pid) in second.stderr
        assert str(first.state_dir) in second.stderr
        assert "Traceback" not in second.stderr
        assert first.ready()


def test_an_embedded_server_that_ends_is_started_again_without_loss(tmp_path: Path) -> None:
    """Points of the time without it wait in memory; each arrives once."""
    with running(tmp_path) as daemon:
        daemon.send_udp("outage:1|c")
        wait_for(lambda: daemon.value("outage") == 1, "the first point")
        time.sleep(1.5)
        pid = embedded_pid(daemon)
        os.kill(pid, signal.SIGKILL)
        for _ in range(5):
            daemon.send_udp("outage:1|c")
            time.sleep(0.3)

        def back() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                return daemon.value("outage") == 6
            return False

        wait_for(back, "all six points")
        assert embedded_pid(daemon) != pid
        assert "collector_lost_total{" in daemon.get_text("/metrics")
        lost = [line for line in daemon.get_text("/metrics").splitlines() if "collector_lost_total{" in line]
        assert all(line.endswith(" 0") for line in lost), lost


def test_an_own_redis_is_used_when_one_is_named(tmp_path: Path) -> None:
    """redis.url of a unix socket: no embedded server, values in that server under the prefix."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with server(directory) as path:
        config = CONFIG + f"redis:\n  url: unix://{path}\n  prefix: mine\n"
        with running(tmp_path, config) as daemon:
            daemon.send_udp("own:3|c")
            wait_for(lambda: daemon.value("own") == 3, "the counter")
            assert daemon.get("/api/v1/status")["store"]["embedded_pid"] is None
            assert not (daemon.state_dir / "valkey.conf").exists()
        client = redis.Redis(unix_socket_path=path)
        found: Any = client.keys("*")
        assert found
        assert all(key.startswith((b"mine:", b"{mine")) for key in found)
        client.close()


def test_not_ready_until_the_store_was_reached(tmp_path: Path) -> None:
    """A store that is away at start: healthy, receiving, not ready; then ready, with nothing lost."""
    directory = tmp_path / "redis"
    directory.mkdir()
    config = CONFIG + f"redis:\n  url: unix://{directory}/server.sock\n"
    daemon = DaemonProcess(tmp_path, config.format(state_dir=tmp_path / "state"))
    try:
        wait_for(lambda: "collector.ready" in daemon.log, "the daemon to listen")
        assert not daemon.ready()
        assert daemon.get_text("/-/healthy")
        daemon.send_udp("early:2|c")
        time.sleep(1.5)
        with server(directory):
            wait_for(daemon.ready, "the daemon to be ready")
            wait_for(lambda: daemon.value("early") == 2, "the early counter")
            daemon.stop()
    finally:
        daemon.stop()


def test_refused_lines_are_counted_kept_and_logged_once(daemon: DaemonProcess) -> None:
    """Reason and sender of each; neighbours are kept; the log has one line, escaped."""
    for _ in range(5):
        daemon.send_udp("good.one:1|c", "X\x1b[31m", "good.two:1|c")
    wait_for(lambda: daemon.value("good.two") == 5, "the neighbours")
    assert daemon.value("good.one") == 5
    refused = [line for line in daemon.get("/api/v1/rejected") if line["line"].startswith("X")]
    assert len(refused) == 5
    assert {line["reason"] for line in refused} == {"no_value"}
    assert all(line["sender"].startswith("127.0.0.1:") for line in refused)
    assert all("\x1b" not in line["line"] for line in refused)
    wait_for(lambda: "lines.refused reason=no_value" in daemon.log, "the log line")
    time.sleep(1.5)
    assert daemon.log.count("lines.refused reason=no_value") == 1
    assert "\x1b" not in daemon.log
    metrics = daemon.get_text("/metrics")
    assert 'collector_lines_rejected_total{reason="no_value"} 5' in metrics


def test_one_colon_does_not_stop_anything(daemon: DaemonProcess) -> None:
    """The datagram `:` that spins another server is one refused line; the next counts within a second."""
    daemon.send_udp(":")
    daemon.send_udp("after.colon:1|c")
    wait_for(lambda: daemon.value("after.colon") == 1, "the line after it", 10)


def test_gauge_signs_follow_the_listener(daemon: DaemonProcess) -> None:
    """`-3` moves on a statsd listener and sets on a dogstatsd one."""
    listeners = daemon.get("/api/v1/status")["listeners"]
    dogstatsd = next(one for one in listeners if one["url"] == "udp://127.0.0.1:0")
    port = int(dogstatsd["addresses"][0].rsplit(":", 1)[1])
    daemon.send_udp("sign.moves:10|g", "sign.moves:-3|g")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"sign.sets:10|g\nsign.sets:-3|g", ("127.0.0.1", port))
    wait_for(lambda: daemon.value("sign.moves") == 7, "the moved gauge")
    wait_for(lambda: daemon.value("sign.sets") == -3, "the set gauge")


def test_two_kinds_of_one_name_and_derived_names_live_side_by_side(daemon: DaemonProcess) -> None:
    """A counter and a gauge of one name are told apart by `kind`; a timer's name harms no other."""
    daemon.send_udp("twin:1|c", "twin:5|g", "stat:2|ms", "stat_count:1|c", "constructor:1|c", "__proto__:1|c")
    wait_for(lambda: len(daemon.query("twin")) == 2, "both")
    kinds = {one["metric"]["kind"]: float(one["value"][1]) for one in daemon.query("twin")}
    assert kinds == {"counter": 1, "gauge": 5}
    assert daemon.value("stat_count") == 1
    assert daemon.value("constructor") == 1
    assert daemon.value('{"__proto__"}') == 1


def test_names_beyond_ascii_are_kept_apart(daemon: DaemonProcess) -> None:
    """Letters are not stripped: two names stay two series, and are found by their quoted name."""
    daemon.send_udp("föö:1|c", "fää:2|c")
    wait_for(lambda: daemon.value('{"fää"}') == 2, "the second")
    assert daemon.value('{"föö"}') == 1


def test_sets_count_each_minute_and_the_clock_never_skips(daemon: DaemonProcess) -> None:
    """Consecutive points of a steady counter are one flush interval apart: none skipped, none doubled."""
    end = time.monotonic() + 6
    sent: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", daemon.port("udp")))
        while time.monotonic() < end:
            sock.send(b"steady:1|c")
            sent.append(time.time())
            time.sleep(0.05)
    wait_for(lambda: daemon.value("steady") == len(sent), "all of it")
    (series,) = daemon.query("steady[1m]")
    times = [at for at, _ in series["values"]]
    assert len(set(times)) == len(times)
    assert all(at == int(at) for at in times)
    # What was sent well inside a second is in that second's point, however busy the machine was.
    assert {int(at) for at in sent if 0.1 < at % 1 < 0.8} <= {int(at) for at in times}


def test_address_in_use_names_the_address(tmp_path: Path) -> None:
    """A port that is taken ends the start with the URL and the remedy, and no traceback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        config = CONFIG.replace("udp://localhost:0", f"udp://127.0.0.1:{port}")
        daemon = DaemonProcess(tmp_path, config.format(state_dir=tmp_path / "state"))
        assert daemon.process.wait(30) == 75
        daemon.stop()
        assert f"udp://127.0.0.1:{port}" in daemon.log
        assert "Traceback" not in daemon.log
