"""Clients as people have them, unchanged, each in its own environment: every value that they send is checked.

`make clients` installs them (tests/clients/install.py); a client that is not there is skipped with the
reason. The programs in tests/clients/ send through them; what must come out stands in client_table.py.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from client_table import CASES
from harness import DEADLINE, DaemonProcess, running, wait_for

HERE = Path(__file__).resolve().parent / "clients"
ROOM = HERE.parent.parent / ".clients"
CONFIG = """\
listen:
  - udp://127.0.0.1:0
  - tcp://127.0.0.1:0
  - {{{{url: "udp://127.0.0.1:0", gauges: dogstatsd}}}}
  - {{{{url: "udp://127.0.0.1:0", dialects: [influx]}}}}
  - {{{{url: "unixgram://{room}/g.sock", gauges: dogstatsd}}}}
  - {{{{url: "unixstream://{room}/s.sock", gauges: dogstatsd}}}}
  - {{{{url: "tcp://127.0.0.1:0", dialects: [influx]}}}}
flush_interval: 1s
state_dir: {{state_dir}}
http: {{{{listen: "127.0.0.1:0"}}}}
"""
PROGRAM_SECONDS = 60
MORE_THAN_A_FLUSH = 1.1


@dataclass
class Doors:
    """The daemon, and its listeners as the programs are told of them."""

    daemon: DaemonProcess
    told: dict[str, Any]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A daemon with a listener of each kind; each client sends under a prefix of its own."""
    with (
        TemporaryDirectory(prefix="c") as room,
        running(tmp_path_factory.mktemp("clients"), CONFIG.format(room=room)) as daemon,
    ):
        listeners = daemon.get("/api/v1/status")["listeners"]
        ports = [
            int(one["addresses"][0].rpartition(":")[2])
            for one in listeners
            if one["addresses"][0].startswith(("udp:", "tcp:"))
        ]
        told = dict(zip(("udp", "tcp", "dogstatsd", "influx", "influx_tcp"), ports, strict=True))
        yield Doors(daemon, {**told, "unixgram": f"{room}/g.sock", "unixstream": f"{room}/s.sock"})


# ------------------------------------------------------------------ how a program is run


def command(environment: str, program: str) -> list[str]:
    """The interpreter of an environment and its program; skips the test where it is not there."""
    kind, _, name = environment.partition("/")
    path = str(HERE / program)
    if kind == "ruby":
        return [*_debian("ruby", ["-e", "require 'statsd'; Statsd::Batch"], "ruby-statsd"), path]
    if kind == "perl":
        return [*_debian("perl", ["-MNet::Statsd", "-e1"], "libnet-statsd-perl"), path]
    client, _, part = name.partition("/")
    why = ROOM / kind / f"{client}.why"
    if why.exists():
        pytest.skip(f"{client}: {why.read_text().strip()}")
    if not (ROOM / kind / f"{client}.installed").exists():
        pytest.skip(f"{client} is not installed: make clients")
    if not (ROOM / environment).is_dir():
        pytest.skip(f"{client} came without {part.rpartition('/')[2]}, which npm could not compile here")
    if kind == "npm":
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not on PATH")
        return [node, "--no-deprecation", path]
    return [str(ROOM / environment / "bin" / "python"), path]


def _debian(interpreter: str, probe: list[str], package: str) -> list[str]:
    found = shutil.which(interpreter)
    if found is None or subprocess.run([found, *probe], capture_output=True, check=False).returncode:
        pytest.skip(f"{package} is not installed")
    return [found]


def send(doors: Doors, name: str) -> str:
    """Runs a client's program; the prefix of its metrics."""
    environment, program, arguments, _ = CASES[name]
    prefix = f"real.{name.replace('-', '_')}"
    # Some clients read their settings from the environment, which is not the test's.
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("DD_", "STATSD_"))}
    environ["NODE_PATH"] = str(ROOM / "/".join(environment.split("/")[:2]) / "node_modules")
    done = subprocess.run(
        [*command(environment, program), json.dumps({**doors.told, "prefix": prefix}), *arguments],
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
        env=environ,
    )
    assert done.returncode == 0, done.stderr
    return prefix


# ------------------------------------------------------------------ checks


def settles(what: str, expected: Any, read: Callable[[], Any]) -> None:
    """Waits until something reads as expected; else fails with what it was last."""
    end = time.monotonic() + DEADLINE
    while read() != pytest.approx(expected):
        assert time.monotonic() < end, f"{what} is {read()}, not {expected}"
        time.sleep(0.05)


def histogram(daemon: DaemonProcess, selector: str) -> tuple[float, float] | None:
    """(count, sum) of the only timer that a selector finds."""
    result = daemon.query(selector)
    if len(result) != 1 or "histogram" not in result[0]:
        return None
    found = result[0]["histogram"][1]
    return float(found["count"]), float(found["sum"])


def lasts(checks: list[tuple[str, Any, Callable[[], Any]]]) -> None:
    """Waits until all reads as expected, and makes sure that it still does after another flush."""
    for check in checks:
        settles(*check)
    time.sleep(MORE_THAN_A_FLUSH)
    for what, expected, read in checks:
        assert read() == pytest.approx(expected), what


def event(daemon: DaemonProcess, title: str) -> tuple[str, str, bool] | None:
    """What the programs fill of an event: its text, its kind, and whether its tag came along."""
    for one in daemon.get("/api/v1/events", limit="1000"):
        if one["title"] == title:
            return one["text"], one["alert"], "a:1" in one["tags"]
    return None


def service_check(daemon: DaemonProcess, name: str) -> tuple[int, str] | None:
    """The status and the message of a service check."""
    for one in daemon.get("/api/v1/checks", limit="1000"):
        if one["name"] == name:
            return one["status"], one["message"]
    return None


def refused_since(daemon: DaemonProcess, before: dict[str, int]) -> dict[str, int]:
    """How many lines were refused since, by reason."""
    refused = Counter(daemon.get("/api/v1/status")["rejected"])
    refused.subtract(before)
    return dict(+refused)


@pytest.mark.parametrize("name", list(CASES))
def test_a_real_client_is_understood(doors: Doors, name: str) -> None:
    """All that the client sends is there once, with its value and tags, and only what is wrong is refused."""
    daemon = doors.daemon
    before = daemon.get("/api/v1/status")["rejected"]
    prefix = send(doors, name)
    expected = CASES[name][3].under(prefix)
    checks: list[tuple[str, Any, Callable[[], Any]]] = [
        ("what is refused", dict(Counter(expected.refused)), partial(refused_since, daemon, before))
    ]
    for selector, value in expected.values.items():
        checks.append((selector, value, partial(daemon.value, selector)))
    for selector, timer in expected.timers.items():
        checks.append((selector, timer, partial(histogram, daemon, selector)))
    for title in expected.events:
        checks.append((title, ("line one\nline two", "warning", True), partial(event, daemon, title)))
    for check in expected.checks:
        checks.append((check, (1, "slow | late"), partial(service_check, daemon, check)))
    for selector in expected.present:
        wait_for(partial(histogram, daemon, selector), selector)
    lasts(checks)


def test_a_client_that_cannot_be_had_leaves_its_reason_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an environment would fail its client's test; a stamp without one would keep it away for good."""
    spec = importlib.util.spec_from_file_location("install_clients", HERE / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    monkeypatch.setattr(install, "ROOM", tmp_path)
    fails = True

    def pypi(where: Path, wanted: list[str], end: float) -> None:
        (where / "bin").mkdir(parents=True)
        if fails:
            install.run(["sh", "-c", "echo ERROR: no such version; echo bye; exit 1"], end)
        (where / "bin" / "python").touch()

    monkeypatch.setattr(install, "pypi", pypi)
    ask = partial(install.install, "pypi", "one", ["one==1"])
    assert ask() == "skipped: one==1: no such version"
    assert [path.name for path in (tmp_path / "pypi").iterdir()] == ["one.why"]
    fails = False
    assert ask() == "one==1: installed"
    assert sorted(path.name for path in (tmp_path / "pypi").iterdir()) == ["one", "one.installed"]
    assert ask() == "one==1: already here"
    assert install.install("pypi", "one", ["one==2"]) == "one==2: installed"
    shutil.rmtree(tmp_path / "pypi" / "one")
    assert install.install("pypi", "one", ["one==2"]) == "one==2: installed"
    monkeypatch.setattr(install, "SECONDS", 1)
    with pytest.raises(install.NotInstalled, match="more than 1 s"):
        install.run(["sh", "-c", "sleep 60 & wait"], time.monotonic())


def test_gunicorn_under_load(doors: Doors, tmp_path: Path) -> None:
    """500 requests from many clients at once to two workers: counted once each, and each duration kept."""
    program = command("pypi/gunicorn", "gunicorn_app.py")[0]
    log = tmp_path / "gunicorn.log"
    before = doors.daemon.get("/api/v1/status")["rejected"]
    options = ["--bind", "127.0.0.1:0", "--workers", "2", "--threads", "4"]
    options += ["--statsd-host", f"127.0.0.1:{doors.told['udp']}", "--statsd-prefix", "real"]
    with log.open("wb") as out:
        server = subprocess.Popen(
            [program, "-m", "gunicorn", *options, "gunicorn_app:app"],
            cwd=HERE,
            stdout=out,
            stderr=out,
        )
    try:
        url = wait_for(lambda: re.search(r"Listening at: (http://\S+)", log.read_text()), "gunicorn")[1]

        def ask(number: int) -> int:
            with urllib.request.urlopen(f"{url}/{number}", timeout=30) as answer:
                return int(answer.status)

        with concurrent.futures.ThreadPoolExecutor(8) as clients:
            assert list(clients.map(ask, range(500))) == [200] * 500
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    daemon = doors.daemon
    duration = "real.gunicorn.request.duration"
    lasts(
        [
            ("real.gunicorn.requests", 500, partial(daemon.value, "real.gunicorn.requests")),
            ("status 200", 500, partial(daemon.value, "real.gunicorn.request.status.200")),
            (duration, 500, lambda: (histogram(daemon, duration) or (None,))[0]),
            ("what is refused", {}, partial(refused_since, daemon, before)),
        ]
    )
    assert daemon.value("real.gunicorn.workers") is not None
