"""Single commands, and calls of scripts, which a server that does not know them yet is sent in full."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Part = bytes | int | str


async def command(client: Redis, *parts: Part) -> Any:
    """The reply to one command."""
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]


class Script:
    """One script of this package."""

    def __init__(self, name: str) -> None:
        self.text: Final = (resources.files(__package__) / name).read_bytes()
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    async def run(self, client: Redis, keys: Sequence[bytes], arguments: Sequence[Part]) -> Any:
        """The reply to one call. All keys lie in one shard."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await command(client, "EVALSHA", self.sha, *rest)
        except NoScriptError:
            return await command(client, "EVAL", self.text, *rest)
