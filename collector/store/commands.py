"""Single commands, and calls of scripts, which a server that does not know them yet is sent in full."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from redis.exceptions import NoScriptError

from collector.errors import StoreError
from collector.store.topology import Topology

Part = bytes | int | str


async def command(store: Topology, *parts: Part) -> Any:
    """The reply to one command, whose first argument is its key. StoreError when it fails."""
    (reply,) = await store.ask([parts])
    return reply


class Script:
    """One script of this package."""

    def __init__(self, name: str) -> None:
        self.text: Final = (resources.files(__package__) / name).read_bytes()
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    async def run(self, store: Topology, keys: Sequence[bytes], arguments: Sequence[Part]) -> Any:
        """The reply to one call. All keys lie in one shard. StoreError when it fails."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await command(store, "EVALSHA", self.sha, *rest)
        except StoreError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return await command(store, "EVAL", self.text, *rest)
