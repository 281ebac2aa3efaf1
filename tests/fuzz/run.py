"""Builds the fuzz targets under AddressSanitizer and UndefinedBehaviorSanitizer, and runs them in turn.

    python tests/fuzz/run.py [SECONDS]     60 by default, for each

    core       the engine's core                       fuzz_core.c      corpus/core
    sketch     sketches as bytes, and added up         fuzz_sketch.c    corpus/sketch

With clang it is libFuzzer, and what it finds new goes into tests/fuzz/found (move what is worth keeping into
the corpus). With another compiler the corpus is replayed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
CORPUS: Final = HERE / "corpus"
FOUND: Final = HERE / "found"
CORE: Final = HERE.parent.parent / "collector" / "engine" / "core"
SANITIZERS: Final = "address,undefined"
TARGETS: Final = ("core", "sketch")


def sources(name: str) -> list[Path]:
    """The core without its thread, which has no input of its own; of a sketch, what reads and writes it."""
    if name == "sketch":
        return [HERE / "fuzz_sketch.c", CORE / "weighted.c"]
    return [HERE / "fuzz_core.c", *sorted(path for path in CORE.glob("*.c") if path.name != "reader.c")]


def build(target: Path, compiler: str, *, fuzzer: bool, name: str) -> None:
    """Compiles a target; CalledProcessError with the compiler's words otherwise."""
    command = [
        *(compiler, "-std=c11", "-g", "-O1", "-fno-sanitize-recover=all"),
        f"-fsanitize={'fuzzer,' if fuzzer else ''}{SANITIZERS}",
        *("-include", str(HERE / "failing_memory.h"), f"-I{HERE}", f"-I{CORE}"),
        *map(str, sources(name)),
        *([] if fuzzer else [str(HERE / "replay.c")]),
        *("-lm", "-lpthread", "-o", str(target)),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)


def inputs(name: str) -> list[str]:
    """The committed corpus."""
    return sorted(str(path) for path in (CORPUS / name).iterdir())


def fuzz(name: str, seconds: str, target: Path) -> int:
    """0 if nothing was found."""
    clang = shutil.which("clang")
    if clang:
        build(target, clang, fuzzer=True, name=name)
        found = FOUND / name
        found.mkdir(parents=True, exist_ok=True)
        options = [f"-max_total_time={seconds}", "-max_len=2000", f"-artifact_prefix={found}/"]
        return subprocess.run([target, *options, found, CORPUS / name], check=False).returncode
    build(target, shutil.which("gcc") or "cc", fuzzer=False, name=name)
    return subprocess.run([target, *inputs(name)], check=False).returncode


def main() -> int:
    """0 if nothing was found."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    with tempfile.TemporaryDirectory() as directory:
        codes = [fuzz(name, seconds, Path(directory) / name) for name in TARGETS]
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main())
