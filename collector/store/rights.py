"""What the collector has to be allowed to do: the one list, for docs/store.md, `store check` and the sender.

A server is asked without anything being done: between MULTI and DISCARD it queues a command that we may use,
and refuses one that we may not. It refuses there too what it would refuse for other reasons: because it is
full, a replica, or cannot save. So two round trips tell whether it will take a flush, on every version and
without the right to look at rights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from collector.store.address import Layout, StoreAddress
from collector.store.client import exchange
from collector.store.faults import Fault, fault_of
from collector.store.keys import KeySpace
from collector.store.settings import Durability, StoreSettings

_KEY: Final = b"\0key"  # stands for a key of ours


class When(StrEnum):
    """Who needs a right."""

    ALWAYS = "always"
    DATABASE = "database"  # with a database other than 0
    SENTINEL = "sentinel"
    CLUSTER = "cluster"
    REPLICA = "replica"  # with `durability: replica`
    USAGE = "usage"  # `collector store usage`


@dataclass(frozen=True, slots=True)
class Right:
    """A command, as an ACL rule names it, with arguments that it would take."""

    name: str
    arguments: tuple[bytes, ...] = (_KEY,)
    when: When = When.ALWAYS

    def command(self, key: bytes) -> tuple[bytes, ...]:
        """The command as it is sent."""
        words = (part.encode() for part in self.name.upper().split("|"))
        return (*words, *(key if one is _KEY else one for one in self.arguments))


# The two that the question itself needs, and those that it asks for.
TRANSACTION: Final = ("multi", "discard")
RIGHTS: Final = (
    Right("ping", ()),
    Right("info", ()),
    Right("client|setname", (b"collector",)),
    Right("script|load", (b"return 1",)),
    Right("evalsha", (b"0" * 40, b"1", _KEY)),
    Right("get"),
    Right("set", (_KEY, b"1")),
    Right("hget", (_KEY, b"1")),
    Right("hset", (_KEY, b"1", b"1")),
    Right("hsetnx", (_KEY, b"1", b"1")),
    Right("hmget", (_KEY, b"1")),
    Right("hgetall"),
    Right("hincrby", (_KEY, b"1", b"1")),
    Right("hincrbyfloat", (_KEY, b"1", b"1")),
    Right("zadd", (_KEY, b"1", b"1")),
    Right("zcard"),
    Right("zrevrange", (_KEY, b"0", b"1")),
    Right("zremrangebyrank", (_KEY, b"0", b"1")),
    Right("pfadd", (_KEY, b"1")),
    Right("pfcount"),
    Right("xadd", (_KEY, b"*", b"1", b"1")),
    Right("xrevrange", (_KEY, b"+", b"-")),
    Right("expire", (_KEY, b"1")),
    Right("unlink"),
    Right("eval", (b"return 1", b"1", _KEY)),
    Right("exists"),
    Right("ttl"),
    Right("pexpire", (_KEY, b"1")),
    Right("del"),
    Right("hscan", (_KEY, b"0")),
    Right("hlen"),
    Right("hkeys"),
    Right("hdel", (_KEY, b"1")),
    Right("sadd", (_KEY, b"1")),
    Right("srem", (_KEY, b"1")),
    Right("srandmember", (_KEY, b"1")),
    Right("pfmerge", (_KEY, _KEY)),
    Right("wait", (b"1", b"1"), When.REPLICA),
    Right("select", (b"0",), When.DATABASE),
    Right("role", (), When.SENTINEL),
    Right("asking", (), When.CLUSTER),
    Right("cluster|slots", (), When.CLUSTER),
    Right("memory|usage", (_KEY,), When.USAGE),
)


def needed(address: StoreAddress, settings: StoreSettings) -> list[When]:
    """The cases that apply where a store is so."""
    cases = {
        When.DATABASE: address.database != 0,
        When.SENTINEL: address.layout is Layout.SENTINEL,
        When.CLUSTER: address.layout is Layout.CLUSTER,
        When.REPLICA: settings.durability is Durability.REPLICA,
    }
    return [case for case, applies in cases.items() if applies]


def key_patterns(prefix: str) -> list[str]:
    """The keys that it is about, as ACL rules name them."""
    return [f"~{{{prefix}*", f"~{prefix}:*"]


def rules(prefix: str, *when: When) -> list[str]:
    """The rules of ACL SETUSER: keys, then commands."""
    wanted = (When.ALWAYS, *when)
    commands = [*TRANSACTION, *(right.name for right in RIGHTS if right.when in wanted)]
    return [*key_patterns(prefix), *(f"+{name}" for name in commands)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says to a question: the rules that are missing, and another error, if any."""

    missing: list[str]
    refused: Exception | None = None

    @property
    def told(self) -> tuple[str, str]:
        """What is missing, and the command that gives it."""
        missing = " ".join(self.missing)
        return f"missing: {missing}", f"ACL SETUSER <user> {missing} (all are in docs/store.md)"

    def __str__(self) -> str:
        return "the user lacks rights, {}: {}".format(*self.told)


async def may_write(connection: Any, keys: KeySpace, key: bytes, when: Sequence[When] = ()) -> Answer:
    """Asks whether all that is on the list would be taken now, for a key of this server; changes nothing.

    Afterwards the connection is as before, unless `discard` is among what is missing.
    """
    (begun,) = await exchange(connection, [(b"MULTI",)])
    if isinstance(begun, Exception):  # without it the commands would be carried out
        if fault_of(begun) is Fault.RIGHTS:
            return Answer(["+multi"])
        return Answer([], begun)
    asked = [right for right in RIGHTS if right.when in (When.ALWAYS, *when)]
    replies = await exchange(connection, [*(right.command(key) for right in asked), (b"DISCARD",)])
    missing: list[str] = []
    refused: Exception | None = None
    for name, reply in zip([*(right.name for right in asked), "discard"], replies, strict=True):
        if not isinstance(reply, Exception):
            continue
        if fault_of(reply) is not Fault.RIGHTS:
            refused = refused or reply
        elif "key" in str(reply).replace(name, ""):
            missing += [one for one in key_patterns(keys.prefix) if one not in missing]
        else:
            missing.append(f"+{name}")
    return Answer(missing, refused)
