"""The fuzz targets: their corpus replayed, and a short run of the fuzzer."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest


def fuzzing() -> ModuleType:
    """tests/fuzz/run.py."""
    spec = importlib.util.spec_from_file_location("fuzzing", Path(__file__).parent / "fuzz" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LEAST = {"core": 40, "sketch": 8}  # inputs in the corpus
SECONDS = {"core": 8, "sketch": 3}


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc to build it with")
def test_the_corpus_is_clean_under_the_sanitizers(tmp_path: Path, name: str) -> None:
    """No error of memory, no undefined behaviour, and nothing that the core says of itself is wrong."""
    run = fuzzing()
    try:
        run.build(tmp_path / "replay", "gcc", fuzzer=False, name=name)
    except subprocess.CalledProcessError as error:
        if "lasan" in error.stderr or "lubsan" in error.stderr:
            pytest.skip("this gcc comes without the sanitizers' libraries")
        raise AssertionError(error.stderr) from None
    inputs = run.inputs(name)
    assert len(inputs) > LEAST[name]
    done = subprocess.run([tmp_path / "replay", *inputs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{len(inputs)} inputs" in done.stdout


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.skipif(not shutil.which("clang"), reason="no clang, so no libFuzzer")
def test_a_short_run_of_the_fuzzer_finds_nothing(tmp_path: Path, name: str) -> None:
    """Some seconds of inputs made from the corpus; `make fuzz ARGS=600` goes on for longer."""
    run = fuzzing()
    try:
        run.build(tmp_path / "fuzz", "clang", fuzzer=True, name=name)
    except subprocess.CalledProcessError as error:
        if "clang_rt" in error.stderr:
            pytest.skip("this clang comes without libFuzzer")
        raise AssertionError(error.stderr) from None
    (tmp_path / "found").mkdir()
    options = [f"-max_total_time={SECONDS[name]}", "-max_len=2000", f"-artifact_prefix={tmp_path}/"]
    command = [tmp_path / "fuzz", *options, tmp_path / "found", run.CORPUS / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
