"""Fixtures of the tests that need the whole daemon."""

from __future__ import annotations

from collections.abc import Iterator

import engines
import pytest
from harness import DaemonProcess, running


@pytest.fixture(scope="module", params=["python", "native"])
def each_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an engine, which `engines.make_engine` makes meanwhile; every one in its turn."""
    with engines.chosen(request.param):
        yield request.param


@pytest.fixture(scope="module", params=["python", "native", "baseline"])
def each_core(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same, with the compiled core both as this processor allows and as every processor does."""
    with engines.chosen(request.param):
        yield request.param


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with its embedded server, shared by the tests of a module: each uses names of its own."""
    with running(tmp_path_factory.mktemp("daemon")) as found:
        yield found
