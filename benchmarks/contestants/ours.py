"""The collector: the whole daemon, its embedded server and a flush every ten seconds included."""

from __future__ import annotations

import json
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.contestants.base import FLUSH, HOST, RECEIVE_BUFFER, Contestant, Running, child, wait_for
from benchmarks.counters import CollectorCounter
from benchmarks.errors import BenchmarkError
from benchmarks.target import Target
from collector import __version__
from collector.config import Settings
from collector.daemon import Daemon
from collector.errors import OperatorError

_CORE: Final = "collector.engine._core"
_CONFIG: Final = """\
listen: [{{url: "{url}", receive_buffer: {buffer}}}]
flush_interval: {flush}s
state_dir: {state}
http: {{listen: "127.0.0.1:0"}}
"""
# The compiled core cannot be imported here, so that the daemon falls back to Python as it does where there
# is none.
_IN_PYTHON: Final = f"""\
import sys
sys.modules[{_CORE!r}] = None
from collector.cli import main
main()
"""
_LAG: Final = re.compile(r"^collector_loop_lag_max_seconds (\S+)", re.MULTILINE)


class Collector(Contestant):
    """On one of its two engines."""

    schemes = frozenset({"udp", "tcp"})
    tags = True

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled
        self.name = f"collector ({'compiled' if compiled else 'Python'})"

    def missing(self) -> str | None:
        """The compiled engine has to be built; the daemon knows."""
        if self._compiled:
            try:
                Daemon(Settings(), require_native=True)
            except OperatorError as error:
                return error.problem
        return None

    def version(self) -> str:
        """Ours."""
        return __version__

    @contextmanager
    def start(self, directory: Path, scheme: str) -> Iterator[Running]:
        """Runs the daemon until the block ends; BenchmarkError when another engine runs than was wanted."""
        config, log = directory / "collector.yaml", directory / "log"
        state = directory / "state"
        url = f"{scheme}://{HOST}:0"
        config.write_text(_CONFIG.format(url=url, buffer=RECEIVE_BUFFER, flush=FLUSH, state=state))
        how = ["-m", "collector"] if self._compiled else ["-c", _IN_PYTHON]
        wish = ["--require-native"] if self._compiled else []
        with child([sys.executable, *how, "run", "--config", str(config), *wish], log) as process:
            wait_for(process, log, lambda: "collector.ready" in log.read_text(errors="replace"))
            api = re.findall(r"http\.listening url=(\S+)", log.read_text())[-1]
            status = _status(api)
            if ("python" in status["engine"]) == self._compiled:
                raise BenchmarkError(f"the engine {status['engine']} runs", "reinstall the collector")
            port = int(status["listeners"][0]["addresses"][0].rpartition(":")[2])
            target = Target(scheme, HOST, port)
            yield Running(target, process.pid, CollectorCounter(api), lambda: _notes(api))


def _status(api: str) -> dict[str, Any]:
    with urllib.request.urlopen(api + "/api/v1/status", timeout=10) as answer:
        status: dict[str, Any] = json.load(answer)["data"]
    return status


def _notes(api: str) -> Mapping[str, float]:
    """The longest hold of the event loop."""
    with urllib.request.urlopen(api + "/metrics", timeout=10) as answer:
        found = _LAG.search(answer.read().decode())
    return {"loop_lag_max_seconds": float(found[1])} if found else {}
