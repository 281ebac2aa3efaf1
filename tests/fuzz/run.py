"""Builds the fuzz target of the core under AddressSanitizer and UndefinedBehaviorSanitizer, and runs it.

    python tests/fuzz/run.py [SECONDS]     60 by default

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


def sources() -> list[Path]:
    """The core without its thread, which has no input of its own."""
    return [HERE / "fuzz_core.c", *sorted(path for path in CORE.glob("*.c") if path.name != "reader.c")]


def build(target: Path, compiler: str, *, fuzzer: bool) -> None:
    """Compiles the target; CalledProcessError with the compiler's words otherwise."""
    command = [
        *(compiler, "-std=c11", "-g", "-O1", "-fno-sanitize-recover=all"),
        f"-fsanitize={'fuzzer,' if fuzzer else ''}{SANITIZERS}",
        *("-include", str(HERE / "failing_memory.h"), f"-I{HERE}", f"-I{CORE}"),
        *map(str, sources()),
        *([] if fuzzer else [str(HERE / "replay.c")]),
        *("-lm", "-lpthread", "-o", str(target)),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)


def inputs() -> list[str]:
    """The committed corpus."""
    return sorted(str(path) for path in CORPUS.iterdir())


def main() -> int:
    """0 if nothing was found."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "60"
    clang = shutil.which("clang")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "fuzz_core"
        if clang:
            build(target, clang, fuzzer=True)
            FOUND.mkdir(exist_ok=True)
            options = [f"-max_total_time={seconds}", "-max_len=2000", f"-artifact_prefix={FOUND}/"]
            return subprocess.run([target, *options, FOUND, CORPUS], check=False).returncode
        build(target, shutil.which("gcc") or "cc", fuzzer=False)
        return subprocess.run([target, *inputs()], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
