"""The whole daemon under load: a little of what `make soak` does at full size."""

from __future__ import annotations

from pathlib import Path

import pytest
from under_load import (
    FLOODS,
    a_cold_start_loses_nothing,
    a_flood_is_bounded,
    no_datagram_is_lost_during_a_flush,
)

from benchmarks.errors import BenchmarkError
from benchmarks.native import program
from collector.engine import ENGINES, WITHOUT_CORE


@pytest.fixture(autouse=True)
def _native() -> None:
    """The promises are the compiled engine's, and only the sender in C keeps a rate."""
    if "native" not in ENGINES:
        pytest.skip(f"no compiled core: {WITHOUT_CORE}")
    try:
        program("sender")
    except BenchmarkError as error:
        pytest.skip(str(error))


def test_no_datagram_is_lost_during_a_flush(tmp_path: Path) -> None:
    """Windows of 20,000 series are flushed while 8,000 datagrams of 37 lines come in each second."""
    no_datagram_is_lost_during_a_flush(tmp_path, series=20_000, rate=300_000, seconds=4, flush_interval=2)


def test_a_cold_start_loses_nothing(tmp_path: Path) -> None:
    """20,000 series that nobody knows come at 300,000 lines a second."""
    a_cold_start_loses_nothing(tmp_path, series=20_000, rate=300_000, seconds=2, flush_interval=2)


@pytest.mark.parametrize("kind", list(FLOODS))
def test_a_flood_of_new_heads_harms_nobody(tmp_path: Path, kind: str) -> None:
    """200,000 new names, or tags of one name, for 5,000 places: others count, all refused are counted."""
    a_flood_is_bounded(tmp_path, kind=kind, heads=200_000, rate=100_000, series=5_000)
