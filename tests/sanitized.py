"""The engine's tests over an extension that is built with the compiler's sanitizers.

    python tests/sanitized.py address [PYTEST'S ARGUMENTS...]    errors of memory and undefined behaviour
    python tests/sanitized.py thread  [PYTEST'S ARGUMENTS...]    races between the reader thread and Python

The checkout is copied into build/sanitized-..., and the extension is built there as setup.py always builds
it: the one in use is left alone. Python itself is not instrumented, so the sanitizer's runtime is preloaded.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import copy_parts

HERE: Final = Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent
PARTS: Final = ("collector", "config", "tests", "setup.py", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to build and to run."""

    flags: str
    runtimes: tuple[str, ...]  # libraries of gcc that are loaded before Python
    options: dict[str, str]
    tests: tuple[str, ...]  # what is run if nothing else is asked for
    command: tuple[str, ...] = ()  # what Python is started by


KINDS: Final = {
    "address": Kind(
        "-fsanitize=address,undefined -fno-sanitize-recover=all",
        ("libasan.so", "libubsan.so"),
        {
            # CPython's own leaks would drown ours; `make fuzz` looks for those of the core.
            "ASAN_OPTIONS": "detect_leaks=0",
            "PYTHONMALLOC": "malloc",  # so that a look beyond a bytes object is seen too
        },
        (
            *("tests/test_engine.py", "tests/test_engine_faults.py", "tests/test_engine_native.py"),
            *("tests/test_properties.py", "tests/test_listeners.py", "tests/test_listeners_faults.py"),
            *("tests/test_senders.py", "tests/test_unix_sockets.py"),
            *("tests/test_sketch.py", "tests/test_sketch_twins.py", "tests/test_fields.py"),
            # Not those that want to keep up with a sender: an instrumented thread is several times slower.
            *("-k", "not python and not held_up", "-n", "auto"),
        ),
    ),
    "thread": Kind(
        "-fsanitize=thread",
        ("libtsan.so",),
        {"TSAN_OPTIONS": "exitcode=66"},
        ("tests/test_engine_native.py", "-k", "not both_engines and not ingest_gives"),
        # It wants its shadow where newer kernels, which shuffle addresses more, may have put something else.
        ("setarch", platform.machine(), "-R"),
    ),
}


class Unavailable(Exception):
    """This machine cannot build or run it; the text says why."""


def preload(kind: Kind, compiler: str) -> str:
    """The runtimes of a sanitizer, for LD_PRELOAD; Unavailable where the compiler came without them."""
    paths = []
    for name in kind.runtimes:
        asked = [compiler, f"-print-file-name={name}"]
        found = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        if not Path(found).is_absolute():  # it is told where it looked for nothing
            raise Unavailable(f"{compiler} comes without {name}")
        paths.append(found)
    return " ".join(paths)


def build(room: Path, kind: Kind, compiler: str = "gcc") -> None:
    """Builds the extension in a copy of the checkout; CalledProcessError with the compiler's words."""
    if not shutil.which(compiler):
        raise Unavailable(f"there is no {compiler}")
    preload(kind, compiler)
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    copy_parts(CHECKOUT, PARTS, room, "found")
    flags = {"CFLAGS": f"-g -fno-omit-frame-pointer {kind.flags}", "LDFLAGS": kind.flags, "CC": compiler}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=room,
        env={**os.environ, **flags, "COLLECTOR_NATIVE": "yes"},
        check=True,
        capture_output=True,
        text=True,
    )


def command(kind: Kind, *arguments: str) -> list[str]:
    """What runs pytest in the copy. It leaves the sanitizer's own words alone, which come when all ends."""
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys")
    return [*kind.command, *pytest, *arguments]


def environment(kind: Kind, compiler: str = "gcc") -> dict[str, str]:
    """What it is run with."""
    return {**os.environ, **kind.options, "LD_PRELOAD": preload(kind, compiler)}


def main() -> int:
    """pytest's exit code, or the sanitizer's own; 2 where it cannot be run."""
    name, *arguments = sys.argv[1:] or ["address"]
    kind = KINDS[name]
    room = CHECKOUT / "build" / f"sanitized-{name}"
    try:
        build(room, kind)
    except Unavailable as why:
        print(f"cannot run the tests under the {name} sanitizer: {why}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(error.stdout, error.stderr, sep="\n", file=sys.stderr)
        return 2
    run = command(kind, *(arguments or kind.tests))
    return subprocess.run(run, cwd=room, env=environment(kind), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
