"""What is shipped: the wheel's content, the switch for the compiled core, and the lock files."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from harness import copy_parts

ROOT = Path(__file__).resolve().parent.parent
BUILD_INPUTS = ("pyproject.toml", "setup.py", "LICENSE", "collector", "config")
NOT_SHIPPED = {".pyx", ".pxd", ".pxi", ".c", ".h", ".so", ".pyc"}  # sources of the core, and what was built
SHOW_SETTINGS = """
import sys
from importlib.resources import files
sys.stdout.write((files("collector.shipped") / "collector.yaml").read_text())
"""

needs_setuptools = pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None, reason="setuptools is not installed"
)
needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="pip is not installed")
needs_cython = pytest.mark.skipif(
    importlib.util.find_spec("Cython") is None, reason="Cython is not installed"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a build reads, so that nothing is ever built in the real checkout."""
    copy = tmp_path / "checkout with spaces"
    copy.mkdir()
    copy_parts(ROOT, BUILD_INPUTS, copy, "_core.pyx", "_core.c")
    return copy


def run(checkout: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python with `command`, in the copy."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env={**os.environ, "PIP_NO_INDEX": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_setuptools
@needs_pip
def test_a_wheel_holds_the_package_and_nothing_else(checkout: Path, tmp_path: Path) -> None:
    """All that stands in collector/ and config/ is shipped, with the licence, and no test."""
    pip_wheel = ("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir")
    built = run(checkout, *pip_wheel, "-w", str(tmp_path), ".", COLLECTOR_NATIVE="no")
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")  # nothing compiled in it

    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")  # what installing a pure wheel comes to
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    sources = {
        path.relative_to(checkout).as_posix()
        for path in (checkout / "collector").rglob("*")
        if path.is_file() and path.suffix not in NOT_SHIPPED
    }
    assert "collector/py.typed" in sources
    assert {name for name in names - metadata if "/shipped/" not in name} == sources
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)

    shown = run(tmp_path / "site", "-S", "-c", SHOW_SETTINGS)
    assert shown.stdout == (ROOT / "config/collector.yaml").read_text(), shown.stderr


@needs_setuptools
def test_an_editable_install_reads_the_shipped_settings(tmp_path: Path) -> None:
    """There `collector.shipped` is the checkout's config/, by the mapping in pyproject.toml."""
    try:
        distribution("collector")
    except PackageNotFoundError:
        pytest.skip("collector is not installed, only on the path")
    shown = run(tmp_path, "-c", SHOW_SETTINGS)
    assert shown.stdout == (ROOT / "config/collector.yaml").read_text(), shown.stderr


@needs_setuptools
@pytest.mark.parametrize(
    ("native", "said"),
    [
        ("maybe", "COLLECTOR_NATIVE='maybe' is none of the allowed values: auto, yes, no"),
        ("yes", "COLLECTOR_NATIVE=yes, but the source of the compiled core,"),
    ],
)
def test_a_wish_that_cannot_be_met_ends_the_build_in_one_line(checkout: Path, native: str, said: str) -> None:
    """The line names the variable; no traceback hides it."""
    refused = run(checkout, "setup.py", "--version", COLLECTOR_NATIVE=native)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@needs_setuptools
@needs_cython
@pytest.mark.parametrize(
    ("native", "code", "said"),
    [
        ("auto", 0, "collector: no compiled core: it did not build: "),
        ("yes", 1, "collector: COLLECTOR_NATIVE=yes, but the compiled core did not build: "),
        ("no", 0, ""),
    ],
)
def test_without_a_compiler_only_yes_fails(checkout: Path, native: str, code: int, said: str) -> None:
    """`auto` goes on with the pure-Python engine, and says so; `no` does not even try."""
    core = checkout / "collector/engine/_core.pyx"
    core.parent.mkdir(exist_ok=True)
    core.write_text("# cython: language_level=3\n")
    built = run(checkout, "setup.py", "build_ext", "--inplace", COLLECTOR_NATIVE=native, CC="/bin/false")
    assert built.returncode == code, built.stdout + built.stderr
    lines = [line for line in built.stderr.splitlines() if line.startswith("collector: ")]
    assert len(lines) == (1 if said else 0)
    assert all(line.startswith(said) for line in lines)
    assert not list(core.parent.glob("*.so"))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_pins_by_hash_and_names_no_host(lock: str) -> None:
    """Where packages come from is the machine's matter; what they are is ours."""
    text = (ROOT / lock).read_text()
    assert "://" not in text
    entries = text.replace("\\\n", " ").splitlines()
    for entry in (entry for entry in entries if not entry.startswith("#")):
        assert not entry.startswith("-"), "an option, such as an index"
        assert "==" in entry
        assert "--hash=sha256:" in entry


def test_the_development_lock_holds_the_runtime_lock() -> None:
    """Both go into one virtual environment, the second on top of the first."""
    runtime, development = (
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runtime < development
