"""What a server says of itself (INFO), and what of it is worth a warning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OLDEST: Final = (6, 2)  # of Redis; every Valkey is newer
NEARLY_FULL: Final = 0.8  # of maxmemory: samples and minute sketches are left out from here on, see `memory`
POLICY: Final = "noeviction"
KEEP_ALL: Final = f"CONFIG SET maxmemory-policy {POLICY}: this one drops data when the server is full"

# The first Valkey that was seen to cut off a torn script cleanly. Redis 6.2 to 8.2 and Valkey 8.1 were seen
# not to; what was not tried is taken for affected.
_SOUND_VALKEY: Final = (9, 1)


@dataclass(frozen=True, slots=True)
class Server:
    """One server, at one time. Sizes in bytes, times in seconds."""

    product: str  # "redis" or "valkey"
    version: tuple[int, ...]
    run_id: str  # new at each start of the server
    uptime: int
    role: str  # "master" or "slave"
    policy: str  # what it does when it is full; "" where it does not say
    memory: int
    max_memory: int  # 0 without a limit
    aof: bool
    aof_ok: bool
    saves: bool  # whether it has saved snapshots, or tried to
    save_ok: bool
    loading: bool
    replicas: int

    @classmethod
    def parse(cls, info: str) -> Server:
        """Reads a reply to INFO; what is not in it (a managed server hides some) is as if all were well."""
        said = dict(line.split(":", 1) for line in info.splitlines() if ":" in line and line[0] != "#")
        valkey = said.get("server_name") == "valkey"
        return cls(
            product="valkey" if valkey else "redis",
            version=_version(said.get("valkey_version" if valkey else "redis_version", "")),
            run_id=said.get("run_id", ""),
            uptime=_number(said, "uptime_in_seconds"),
            role=said.get("role", "master"),
            policy=said.get("maxmemory_policy", ""),
            memory=_number(said, "used_memory"),
            max_memory=_number(said, "maxmemory"),
            aof=said.get("aof_enabled") == "1",
            aof_ok=said.get("aof_last_write_status", "ok") == "ok",
            saves=_number(said, "rdb_saves") > 0 or _number(said, "rdb_last_save_time") > 0,
            save_ok=said.get("rdb_last_bgsave_status", "ok") == "ok",
            loading=said.get("loading") == "1",
            replicas=_number(said, "connected_slaves"),
        )

    @property
    def shown(self) -> str:
        """Product and version as people write them."""
        return f"{self.product.capitalize()} {'.'.join(map(str, self.version)) or 'of unknown version'}"

    @property
    def evicts(self) -> bool:
        """Whether it may drop what was written."""
        return self.policy not in ("", POLICY)

    @property
    def may_double(self) -> bool:
        """Whether a power loss within a script can leave a part of it in the append-only file for ever.

        The start after it drops that part from memory, not from the file: what is written next follows it
        there, and the start after next applies both. BGREWRITEAOF before then writes the file anew.
        """
        return self.aof and not (self.product == "valkey" and self.version >= _SOUND_VALKEY)

    def restarted_since(self, before: Server, seconds: float) -> bool:
        """Whether it is the server that was heard of so many seconds ago, started anew meanwhile.

        Another run id alone may be another server: the one that a fail-over has put in its place. That one
        has been up for longer.
        """
        return self.run_id != before.run_id and self.uptime <= seconds + 1


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()


def _number(said: Mapping[str, str], name: str) -> int:
    text = said.get(name, "0")
    return int(text) if text.isdigit() else 0
