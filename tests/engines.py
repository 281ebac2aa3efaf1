"""The engines, for tests that must hold for each: `pytestmark = pytest.mark.usefixtures("each_engine")`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from collector.engine import ENGINES, WITHOUT_CORE, PureEngine

current = ["python"]  # the one that `make_engine` makes; the fixture sets it


def make_engine(now: float, **options: Any) -> PureEngine:
    """An engine of the kind that the test is run with."""
    return ENGINES[current[0]](now, **options)


@contextlib.contextmanager
def chosen(name: str) -> Iterator[None]:
    """Lets `make_engine` make that engine; `baseline`: the native one without AVX2 and AES."""
    engine = "native" if name == "baseline" else name
    if engine not in ENGINES:
        pytest.skip(f"no compiled core: {WITHOUT_CORE}")
    before, current[0] = current[0], engine
    with baseline() if name == "baseline" else contextlib.nullcontext():
        yield
    current[0] = before


@contextlib.contextmanager
def baseline() -> Iterator[None]:
    """Has every core that is made meanwhile keep to what any processor of this architecture has."""
    from collector.engine import _core  # it may be missing

    before, _core.baseline = _core.baseline, True
    try:
        yield
    finally:
        _core.baseline = before
