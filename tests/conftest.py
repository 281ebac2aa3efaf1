"""Fixtures of the tests that need the whole daemon."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import DaemonProcess, running


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with its embedded server, shared by the tests of a module: each uses names of its own."""
    with running(tmp_path_factory.mktemp("daemon")) as found:
        yield found
