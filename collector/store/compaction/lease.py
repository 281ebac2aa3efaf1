"""Who may roll a shard up."""

from __future__ import annotations

import contextlib
import secrets
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from collector.errors import StoreError
from collector.store.commands import Part, Script, command
from collector.store.keys import KeySpace
from collector.store.topology import Topology, topology_of

LEASE_MS: Final = 30_000  # every step renews the lease

_SCRIPT: Final = Script("number.lua", "compact.lua")


class LeaseLostError(StoreError):
    """Another collector rolls this shard up by now."""


class Lease:
    """A shard's lease while it is held. Every step renews it, and raises LeaseLostError when it is gone."""

    def __init__(self, store: Topology | Redis, keys: KeySpace, shard: int) -> None:
        self.store = topology_of(store)
        self.shard = shard
        self._key = keys.shard_key(shard, b"lease")
        self._dirty = keys.shard_key(shard, b"dirty")
        self._token = secrets.token_hex(8).encode()

    async def take(self) -> bool:
        """Whether it was free."""
        return bool(await command(self.store, "SET", self._key, self._token, "NX", "PX", LEASE_MS))

    async def step(self, name: str, keys: list[bytes], arguments: list[Part]) -> list[int]:
        """One step of the script; its reply."""
        reply: list[int] = await _SCRIPT.run(
            self.store, [self._key, self._dirty, *keys], [self._token, LEASE_MS, name, *arguments]
        )
        if reply[0] < 0:
            raise LeaseLostError("another collector rolls this shard up by now")
        return reply

    async def free(self) -> None:
        """Gives it back; where that fails it runs out by itself."""
        with contextlib.suppress(StoreError, RedisError, OSError, TimeoutError):
            await self.step("free", [], [])
