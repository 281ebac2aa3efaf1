"""Single commands, and calls of scripts, which a server that does not know them yet is sent in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from collector.errors import StoreError
from collector.store.scripts import ScriptText
from collector.store.topology import Topology

Part = bytes | int | str


async def command(store: Topology, *parts: Part) -> Any:
    """The reply to one command, whose first argument is its key. StoreError when it fails."""
    (reply,) = await store.ask([parts])
    return reply


async def fields_of(store: Topology, key: bytes, piece: int) -> dict[bytes, bytes]:
    """A whole hash, asked for in pieces of about so many fields: one reply could hold the loop."""
    cursor = 0
    found: dict[bytes, bytes] = {}  # a scan may show a field twice
    while True:
        cursor, part = await command(store, "HSCAN", key, cursor, "COUNT", piece)
        found.update(part)
        if not cursor:
            return found


class Script(ScriptText):
    """One script of this package, to be called."""

    async def run(self, store: Topology, keys: Sequence[bytes], arguments: Sequence[Part]) -> Any:
        """The reply to one call. All keys lie in one shard. StoreError when it fails."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await command(store, "EVALSHA", self.sha, *rest)
        except StoreError as error:
            if not isinstance(error.__cause__, NoScriptError):
                raise
        return await command(store, "EVAL", self.text, *rest)
