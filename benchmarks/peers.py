"""`python -m benchmarks.peers [list|install]`: other servers, to compare with.

They go into `.peers/` at the top of the checkout and nowhere else. What Debian packages has to be installed
by its own means: that changes the machine, which a benchmark must not do by itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent / ".peers"
_INSTALL: Final = "not installed: python -m benchmarks.peers install"


@dataclass(frozen=True, slots=True)
class NodePeer:
    """A package of npm."""

    name: str
    version: str
    hint: str = _INSTALL

    @property
    def directory(self) -> Path:
        """Where its package stands."""
        return ROOT / "node" / "node_modules" / self.name

    def install(self) -> None:
        """With npm; what it can do without is left out, for that wants to be compiled."""
        prefix = ROOT / "node"
        prefix.mkdir(parents=True, exist_ok=True)
        package = f"{self.name}@{self.version}"
        options = ["--no-audit", "--no-fund", "--omit=optional", "--ignore-scripts"]
        subprocess.run(["npm", "install", *options, "--prefix", str(prefix), package], check=True)

    @property
    def needs(self) -> str:
        """The program that installs it."""
        return "npm"


@dataclass(frozen=True, slots=True)
class PythonPeer:
    """A package of PyPI, in a virtual environment of its own."""

    name: str
    version: str
    hint: str = _INSTALL

    @property
    def directory(self) -> Path:
        """Its virtual environment."""
        return ROOT / self.name

    @property
    def program(self) -> Path:
        """What runs it."""
        return self.directory / "bin" / self.name

    def install(self) -> None:
        """With the pip of its environment."""
        venv.create(self.directory, with_pip=True, clear=True)
        pip = [str(self.directory / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--disable-pip-version-check", f"{self.name}=={self.version}"], check=True)

    @property
    def needs(self) -> str:
        """The program that installs it."""
        return sys.executable


NODE_STATSD: Final = NodePeer("statsd", "0.9.0")
STATSDLY: Final = PythonPeer("statsdly", "0.4.1")
NAVDOON: Final = PythonPeer("navdoon", "0.3.0")
_PEERS: Final = (NODE_STATSD, STATSDLY, NAVDOON)


def install() -> int:
    """Installs all of them; 1 when one could not be."""
    failed = 0
    for peer in _PEERS:
        if shutil.which(peer.needs) is None:
            print(f"{peer.name}: skipped, {peer.needs} is not installed")
            continue
        try:
            peer.install()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{peer.name}: {error}", file=sys.stderr)
            failed = 1
            continue
        print(f"{peer.name} {peer.version}: installed")
    print("netdata, collectd: apt-get install --no-install-recommends netdata-core collectd-core")
    return failed


def show() -> int:
    """Prints who can take part, and why not."""
    from benchmarks.contestants import everyone

    for one in everyone():
        print(f"{one.name:24} {one.missing() or one.version()}")
    return 0


def main() -> int:
    """The command."""
    commands = {"list": show, "install": install}
    asked = sys.argv[1:] or ["list"]
    if len(asked) != 1 or asked[0] not in commands:
        print("usage: python -m benchmarks.peers [list|install]", file=sys.stderr)
        return 2
    return commands[asked[0]]()


if __name__ == "__main__":
    sys.exit(main())
