"""The text of the Lua scripts beside this file, and the names that a server knows them by."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final


class ScriptText:
    """One script, made of files one after another: what several share stands in a file of its own."""

    def __init__(self, *names: str) -> None:
        folder = resources.files(__package__)
        self.text: Final = b"".join((folder / name).read_bytes() for name in names)
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()
