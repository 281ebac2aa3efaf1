"""Installs the clients that the tests use, each in an environment of its own, under .clients/.

    python tests/clients/install.py          what is there already is left alone

    .clients/pypi/<name>/                    a virtual environment
    .clients/npm/<name>/node_modules/
    .clients/<kind>/<name>.installed         what was asked for: without it the tests take no environment
    .clients/<kind>/<name>.why               why a client is not there: its test is skipped with that

Clients that come from a system's packages (Ruby's, Perl's) are installed with them: `.ci/run` does.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PYPI = {
    "datadog": "0.56.0",
    "aiodogstatsd": "0.16.0.post0",
    "aio-statsd": "0.2.9",
    "monasca-statsd": "2.7.0",
    "python-statsd": "3.0.0",
    "statsd-telegraf": "3.2.1.post1",
    "statsd-tags": "3.2.1.post1",
    "markus": "5.2.0",
    "gunicorn": "27.0.1",
    "sprockets-statsd": "1.0.0",
}
BESIDE = {"markus": ["datadog==0.56.0", "statsd==4.0.1"]}  # markus' back ends send through these
NPM = {"hot-shots": "17.1.1", "node-statsd": "0.1.1", "statsd-client": "0.4.7", "lynx": "0.2.0"}

ROOM = Path(__file__).resolve().parent.parent.parent / ".clients"
AT_ONCE = 4
SECONDS = 180  # for one client


class NotInstalled(Exception):
    """Why a client could not be had, as one line."""


def pypi(where: Path, wanted: list[str], end: float) -> None:
    """A virtual environment with one client."""
    python = str(where / "bin" / "python")
    venv = [sys.executable, "-m", "venv", "--clear"]
    if importlib.util.find_spec("pip"):
        # This Python's pip installs into the other: a pip for each costs more than most clients do.
        run([*venv, "--without-pip", str(where)], end)
        pip = [sys.executable, "-m", "pip", "--python", python]
    else:
        run([*venv, str(where)], end)
        pip = [python, "-m", "pip"]
    run([*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", *wanted], end)


def npm(where: Path, wanted: list[str], end: float) -> None:
    """A directory with one client's node_modules."""
    program = shutil.which("npm")
    if program is None:
        raise NotInstalled("npm is not on PATH")
    where.mkdir(parents=True)
    (where / "package.json").write_text("{}")
    options = ["--loglevel=error", "--no-audit", "--no-fund", "--prefix", str(where)]
    run([program, "install", *options, *wanted], end, headers())


def headers() -> dict[str, str]:
    """Where Node's headers are, for what npm compiles, which would else download them."""
    node = shutil.which("node")
    root = Path(node).resolve().parent.parent if node else Path("/usr")
    found = (root / "include" / "node" / "node.h").exists()
    return {"npm_config_nodedir": str(root)} if found else {}


def run(command: list[str], end: float, env: dict[str, str] | None = None) -> None:
    """Runs a command until a time at the latest; NotInstalled with what it said last."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, **(env or {})},
    ) as process:
        try:
            said, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise NotInstalled(f"it took more than {SECONDS} s") from None
        finally:
            if process.poll() is None:  # compilers that it has started end with it
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise NotInstalled(reason(said) or f"{Path(command[0]).name} ended with {process.returncode}")


def reason(said: str) -> str:
    """The line of an installer's output that says most: its last error, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # npm ends with where its log is; its error's code and text come first.
    npms = [line.partition(" error ")[2] for line in lines if line.startswith("npm error ")]
    if npms:
        return "npm: " + ", ".join(npms[:3])
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1]


def install(kind: str, name: str, wanted: list[str]) -> str:
    """What became of one client, as a line."""
    place = ROOM / kind
    where, stamp, why = place / name, place / f"{name}.installed", place / f"{name}.why"
    asked = " ".join(wanted)
    # A virtual environment's interpreter is a link, which dangles when that Python is gone.
    whole = where / ("bin/python" if kind == "pypi" else "node_modules")
    if whole.exists() and stamp.exists() and stamp.read_text() == asked:
        return f"{wanted[0]}: already here"
    place.mkdir(parents=True, exist_ok=True)
    clear(place, name)
    try:
        {"pypi": pypi, "npm": npm}[kind](where, wanted, time.monotonic() + SECONDS)
    except (NotInstalled, OSError) as error:
        clear(place, name)
        why.write_text(f"{error}\n")
        return f"skipped: {wanted[0]}: {error}"
    stamp.write_text(asked)
    return f"{wanted[0]}: installed"


def clear(place: Path, name: str) -> None:
    """Takes away all that is there of a client, its marks first: half an environment is none."""
    for mark in place.glob(f"{name}.*"):
        mark.unlink()
    shutil.rmtree(place / name, ignore_errors=True)


def main() -> None:
    """Installs all of them, some at a time; the slowest come first."""
    wanted = [("npm", name, [f"{name}@{version}"]) for name, version in NPM.items()]
    wanted += [
        ("pypi", name, [f"{name}=={version}", *BESIDE.get(name, [])]) for name, version in PYPI.items()
    ]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for line in workers.map(lambda one: install(*one), wanted):
            print(line, flush=True)


if __name__ == "__main__":
    main()
