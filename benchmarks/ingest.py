"""Lines per CPU-second: the whole daemon beside a bare receive-and-count loop, over UDP on loopback.

Each is a process of its own, fed by the same sender for the same time, in turn, several times. CPU time is
what the kernel accounts to the process, lines are what it says it has received; what the kernel dropped
because the process was saturated is no part of either.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.payload import mixed, packed

_BARE = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
sock.settimeout(2)
lines = 0
try:
    while data := sock.recv(65536):
        lines += data.count(b"\\n") + 1
except TimeoutError:
    pass
print(lines, flush=True)
"""

_CONFIG = """
listen: ["udp://127.0.0.1:0"]
state_dir: {state}
http: {{listen: "127.0.0.1:0"}}
log_level: info
"""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(port: int, datagrams: list[bytes], seconds: float) -> int:
    """Sends round after round as fast as it goes; the number of datagrams sent."""
    sent = 0
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < end:
            for datagram in datagrams:
                sock.send(datagram)
            sent += len(datagrams)
    return sent


def bare(datagrams: list[bytes], seconds: float) -> float:
    """Lines per CPU-second of the loop that only receives and counts."""
    process = subprocess.Popen([sys.executable, "-c", _BARE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        port = int(process.stdout.readline())
        before = cpu_seconds(process.pid)
        send(port, datagrams, seconds)
        lines = int(process.stdout.readline())
        return lines / (cpu_seconds(process.pid) - before)


def daemon(datagrams: list[bytes], seconds: float) -> tuple[float, float, float]:
    """(lines per CPU-second, longest hold of the event loop in seconds, MiB resident) of `collector run`.

    The flushes to the embedded server that fall into the time are part of it.
    """
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "collector.yaml"
        config.write_text(_CONFIG.format(state=Path(directory) / "state"))
        log = Path(directory) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "collector", "run", "--config", str(config)], stderr=out
            )
        try:
            while "collector.ready" not in log.read_text():
                if process.poll() is not None:
                    raise SystemExit(f"the daemon did not start:\n{log.read_text()}")
                time.sleep(0.05)
            url = re.findall(r"http\.listening url=(\S+)", log.read_text())[-1]
            port = _port(url)
            _metrics(url)
            lines, before = _metrics(url)["collector_lines_total"], cpu_seconds(process.pid)
            send(port, datagrams, seconds)
            time.sleep(2)
            after = cpu_seconds(process.pid)
            metrics = _metrics(url)
            rate = (metrics["collector_lines_total"] - lines) / (after - before)
            return rate, metrics["collector_loop_lag_max_seconds"], _resident(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _port(url: str) -> int:
    with urllib.request.urlopen(url + "/api/v1/status") as answer:
        address: str = json.load(answer)["data"]["listeners"][0]["addresses"][0]
    return int(address.rsplit(":", 1)[1])


def _metrics(url: str) -> dict[str, float]:
    """Self-metrics by name, summed over their labels."""
    sums: dict[str, float] = {}
    with urllib.request.urlopen(url + "/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(seconds: float = 12.0, rounds: int = 3) -> None:
    """Prints medians and ranges."""
    print(f"Ingest: UDP on loopback, mixed lines, {seconds:.0f} s a run, {rounds} rounds in turn")
    for series, size in ((1_000, 1432), (100_000, 1432), (1_000, 1)):
        lines = mixed(series, max(200_000, series))
        datagrams = list(packed(lines, size))
        name = f"{size} B a datagram" if size > 1 else "one line a datagram"
        ours, theirs, gaps = [], [], []
        for _ in range(rounds):
            theirs.append(bare(datagrams, seconds / 3))
            rate, gap, resident = daemon(datagrams, seconds)
            ours.append(rate)
            gaps.append(gap)
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"  {series:>7,} series, {name}")
        print(f"      collector (python)  {_figure(ours)} M lines per CPU-second, {resident:.0f} MiB")
        print(f"      receive and count   {_figure(theirs)}   ratio {ratio:.2f}")
        print(f"      longest loop gap    {max(gaps) * 1000:.0f} ms")


def _figure(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle / 1e6:6.2f} ({low / 1e6:.2f}-{high / 1e6:.2f})"
