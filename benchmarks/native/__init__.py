"""Our C programs of the benchmarks, compiled on first use.

    sender    sends packets that were made beforehand: never the bottleneck, which a sender in Python would be
    bare      receives and counts lines, nothing else: the yardstick

The programs are kept in a cache directory under a name that changes with their source, the compiler and its
options, so an old program is never run by mistake and nothing is compiled twice.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.errors import BenchmarkError

_SOURCE: Final = Path(__file__).parent
_OPTIONS: Final = ("-std=c11", "-O3")
_CACHE: Final = "collector-benchmarks"


def compiler() -> list[str]:
    """The C compiler's command: `$CC`, else cc, gcc or clang; BenchmarkError where there is none."""
    wanted = shlex.split(os.environ.get("CC", ""))
    for command in (wanted,) if wanted else (["cc"], ["gcc"], ["clang"]):
        if found := shutil.which(command[0]):
            return [found, *command[1:]]
    raise BenchmarkError(
        f"no C compiler: {wanted[0] if wanted else 'cc, gcc and clang'} cannot be found",
        "install one (Debian: apt-get install gcc libc6-dev), or name one in the variable CC",
    )


def cache_directory() -> Path:
    """Where the compiled programs are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / _CACHE


def program(name: str) -> Path:
    """The compiled program; BenchmarkError when it cannot be compiled."""
    command = compiler()
    source = _SOURCE / f"{name}.c"
    digest = hashlib.sha256(repr((command, _OPTIONS)).encode())
    for part in (source, *sorted(_SOURCE.glob("*.h"))):
        digest.update(part.read_bytes())
    made = cache_directory() / f"{name}-{digest.hexdigest()[:16]}"
    if made.exists():
        return made
    try:
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as directory:
            output = Path(directory) / name
            _compile([*command, *_OPTIONS, "-o", str(output), str(source)])
            output.rename(made)  # whole or not at all: two programs may compile at the same time
    except OSError as error:
        raise BenchmarkError(
            f"cannot keep the compiled {name}: {error}", "point XDG_CACHE_HOME to a directory of yours"
        ) from error
    return made


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BenchmarkError(
            f"{command[0]} cannot compile {Path(command[-1]).name}:\n{said}",
            "the headers of the C library and of Linux are needed (Debian: apt-get install libc6-dev)",
        )
