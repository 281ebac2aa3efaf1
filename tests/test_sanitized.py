"""The compiled engine under AddressSanitizer and UndefinedBehaviorSanitizer: a short part of `make asan`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import sanitized

SHORT = (
    "tests/test_engine_faults.py",
    "tests/test_engine_native.py",
    "tests/test_listeners.py",
    "-k",
    "native and not uvloop and not tcp and not flood_of_names and not both_engines and not ingest_gives"
    " and not held_up",
)


def test_the_engines_tests_are_clean_under_the_sanitizers(tmp_path: Path) -> None:
    """No look beyond an end or after a free, no undefined behaviour, in the core, its thread and its face."""
    kind = sanitized.KINDS["address"]
    try:
        sanitized.build(tmp_path / "room", kind)
        environment = sanitized.environment(kind)
    except sanitized.Unavailable as why:
        pytest.skip(str(why))
    done = subprocess.run(
        sanitized.command(kind, *SHORT),
        cwd=tmp_path / "room",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[:6000] + done.stdout[-3000:]
    assert " passed" in done.stdout
