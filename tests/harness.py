"""A real daemon in a process of its own, and a real server to look into its data."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from collector.embedded import find_server
from collector.store.keys import KeySpace

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset
DEADLINE = 30.0  # seconds; a test machine may be busy with seven other tests


def frame(payload: bytes) -> bytes:
    """DogStatsD's framing of streams."""
    return struct.pack("<I", len(payload)) + payload


def copy_parts(source: Path, parts: Iterable[str], target: Path, *ignored: str) -> None:
    """Copies files and directories of a checkout, without what is built and matches one of `ignored`."""
    ignore = shutil.ignore_patterns("__pycache__", "*.so", *ignored)
    for part in parts:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, ignore=ignore)
        else:
            shutil.copy2(source / part, target / part)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """The first true value of `condition`, or a failure that says what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


class DaemonProcess:
    """`collector run` with a configuration of the test's own, on free ports."""

    def __init__(self, directory: Path, config: str, env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.state_dir = directory / "state"
        self.config = directory / "collector.yaml"
        self.config.write_text(config)
        self._log = directory / "daemon.log"
        self._log_file = self._log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collector", "run", "--config", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=self._log_file,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self._seen = self._log.stat().st_size if self._log.exists() else 0

    @property
    def log(self) -> str:
        """All that this daemon, and earlier ones of the directory, have logged."""
        return self._log.read_text(errors="replace")

    def wait_ready(self) -> None:
        """Waits until the daemon listens and its store was reached."""
        start = self._seen

        def up() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"daemon ended with {self.process.returncode}:\n{self.log}")
            return "collector.ready" in self.log[start:] and self.ready()

        wait_for(up, "the daemon to be ready")

    def ready(self) -> bool:
        """Whether /-/ready says yes."""
        try:
            self.get_text("/-/ready")
        except (urllib.error.HTTPError, urllib.error.URLError):
            return False
        return True

    @property
    def url(self) -> str:
        """Where the HTTP API of the newest daemon of the directory listens."""
        url: str = re.findall(r"http\.listening url=(\S+)", self.log)[-1]
        return url

    def get_text(self, path: str) -> str:
        """The body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an API answer, or all of it where there is no `data`."""
        query = "?" + urllib.parse.urlencode(parameters) if parameters else ""
        answer = json.loads(self.get_text(path + query))
        return answer.get("data", answer) if isinstance(answer, dict) else answer

    def query(self, selector: str) -> list[dict[str, Any]]:
        """The result of an instant query."""
        result: list[dict[str, Any]] = self.get("/api/v1/query", query=selector)["result"]
        return result

    def value(self, selector: str) -> float | None:
        """The value of the only series that a selector finds."""
        result = self.query(selector)
        return float(result[0]["value"][1]) if len(result) == 1 and "value" in result[0] else None

    def port(self, scheme: str, host: str = "127.0.0.1") -> int:
        """The port of the first listener of a scheme that is bound to a host."""
        for listener in self.get("/api/v1/status")["listeners"]:
            for address in listener["addresses"]:
                if address.startswith(f"{scheme}://{host}:"):
                    return int(address.rsplit(":", 1)[1])
        raise AssertionError(f"no {scheme} listener on {host}")

    def send_udp(self, *lines: str, host: str = "127.0.0.1") -> None:
        """Sends one datagram."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        shown = f"[{host}]" if ":" in host else host
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto("\n".join(lines).encode(), (host, self.port("udp", shown)))

    def redis(self) -> redis.Redis:
        """A client of the embedded server."""
        return redis.Redis(unix_socket_path=str(self.state_dir / "valkey.sock"))

    def keys(self) -> KeySpace:
        """The key names of the daemon's store."""
        return KeySpace("m", 1)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signals the daemon and waits for its end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._log_file.close()


CONFIG = """\
listen:
  - udp://localhost:0
  - tcp://localhost:0
  - {{url: "udp://127.0.0.1:0", gauges: dogstatsd}}
flush_interval: 1s
state_dir: {state_dir}
http: {{listen: "127.0.0.1:0"}}
"""


@contextmanager
def running(directory: Path, config: str = CONFIG) -> Iterator[DaemonProcess]:
    """A ready daemon with the embedded server, stopped at the end."""
    daemon = DaemonProcess(directory, config.format(state_dir=directory / "state"))
    try:
        daemon.wait_ready()
        yield daemon
    finally:
        daemon.stop()


@contextmanager
def server(directory: Path, *options: str) -> Iterator[str]:
    """A Valkey of the test's own, outside any daemon; the path of its unix socket."""
    socket_path = directory / "server.sock"
    process = subprocess.Popen(
        [
            *(find_server(), "--port", "0", "--unixsocket", socket_path, "--dir", directory),
            *("--save", "", "--appendonly", "no", *options),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        client = redis.Redis(unix_socket_path=str(socket_path))

        def up() -> bool:
            try:
                return bool(client.ping())
            except redis.exceptions.ConnectionError:
                return False

        wait_for(up, "the server to answer")
        client.close()
        yield str(socket_path)
    finally:
        process.terminate()
        process.wait()
