"""The engines, for tests that must hold for each: `pytestmark = pytest.mark.usefixtures("each_engine")`."""

from __future__ import annotations

from typing import Any

from collector.engine import ENGINES, PureEngine

current = ["python"]  # the one that `make_engine` makes; the fixture sets it


def make_engine(now: float, **options: Any) -> PureEngine:
    """An engine of the kind that the test is run with."""
    return ENGINES[current[0]](now, **options)
