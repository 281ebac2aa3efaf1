"""Installs the clients that the tests use, each in an environment of its own, under .clients/.

    python tests/clients/install.py          what is there already is left alone

    .clients/pypi/<name>/                    a virtual environment
    .clients/npm/<name>/node_modules/
    .clients/<kind>/<name>.why               why a client is not there: its test is skipped with that

Clients that come from a system's packages (Ruby's, Perl's) are installed with them: `.ci/run` does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
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


def pypi(name: str, version: str) -> None:
    """A virtual environment with one client."""
    where = ROOM / "pypi" / name
    run([sys.executable, "-m", "venv", "--clear", str(where)])
    pip = [str(where / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, f"{name}=={version}", *BESIDE.get(name, [])])


def npm(name: str, version: str) -> None:
    """A directory with one client's node_modules."""
    program = shutil.which("npm")
    if program is None:
        raise RuntimeError("npm is not on PATH")
    where = ROOM / "npm" / name
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    (where / "package.json").write_text("{}")
    options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(where)]
    run([program, "install", *options, f"{name}@{version}"])


def run(command: list[str]) -> None:
    """Runs a command; RuntimeError with the last line that it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{Path(command[0]).name} took more than {SECONDS} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(said[-1] if said else f"{Path(command[0]).name} ended with {done.returncode}")


def install(kind: str, name: str, version: str) -> str:
    """What became of one client, as a line."""
    place = ROOM / kind
    stamp, why = place / f"{name}.{version}", place / f"{name}.why"
    if stamp.exists():
        return f"{name} {version}: already here"
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob(f"{name}.*"):
        old.unlink()
    try:
        {"pypi": pypi, "npm": npm}[kind](name, version)
    except (RuntimeError, OSError) as error:
        why.write_text(f"{error}\n")
        return f"skipped: {name} {version}: {error}"
    stamp.touch()
    return f"{name} {version}: installed"


def main() -> None:
    """Installs all of them, some at a time."""
    wanted = [("pypi", *one) for one in PYPI.items()] + [("npm", *one) for one in NPM.items()]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        for line in workers.map(lambda one: install(*one), wanted):
            print(line, flush=True)


if __name__ == "__main__":
    main()
