"""Fixtures of the tests that need the whole daemon."""

from __future__ import annotations

from collections.abc import Iterator

import engines
import pytest
from harness import DaemonProcess, running

from collector.engine import ENGINES, WITHOUT_CORE


@pytest.fixture(scope="module", params=["python", "native"])
def each_engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an engine, which `engines.make_engine` makes meanwhile; every one in its turn."""
    name: str = request.param
    if name not in ENGINES:
        pytest.skip(f"no compiled core: {WITHOUT_CORE}")
    before, engines.current[0] = engines.current[0], name
    yield name
    engines.current[0] = before


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with its embedded server, shared by the tests of a module: each uses names of its own."""
    with running(tmp_path_factory.mktemp("daemon")) as found:
        yield found
