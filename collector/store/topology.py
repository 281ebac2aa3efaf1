"""The servers behind an address, and which of them has which keys.

    redis://, unix://    one node
    redis+sentinel://    one node: whichever server the Sentinels call the primary when a connection is made
    redis+cluster://     a node for each primary; each has the keys of its hash slots

Nobody else in the store knows which of these it is. A node has a redis-py client of its own, and with it a
pool of connections. Which node has a slot is asked with CLUSTER SLOTS at the start, and again when a node
says that it is not so any more (MOVED), or does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from collector.addresses import host_port
from collector.errors import StoreError
from collector.logfmt import event
from collector.store.address import Layout, StoreAddress
from collector.store.client import connect, connection_options
from collector.store.faults import Fault, explain, fault_of, store_errors
from collector.store.keys import CLUSTER_SLOTS, hash_slot
from collector.store.settings import StoreSettings

log = logging.getLogger(__name__)

Command = tuple[Any, ...]

_PIPELINE: Final = 500  # commands a round trip
_ATTEMPTS: Final = 5  # of a question whose slot moves meanwhile
_PAUSE: Final = 0.05  # seconds before the second attempt; doubled before each further one


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One server that takes writes. `name` is its place in a cluster, and "" when there is but one."""

    name: str
    client: Redis


class Topology(ABC):
    """Nodes, and which of them has a key. `version` grows with each change."""

    version = 0

    @property
    @abstractmethod
    def nodes(self) -> list[Node]:
        """All nodes that are known."""

    @abstractmethod
    def node_of(self, slot: int) -> Node | None:
        """The node that has a slot; None when nobody has it."""

    @abstractmethod
    async def refresh(self) -> None:
        """Asks again who has what; StoreError when nobody answers."""

    @abstractmethod
    async def aclose(self) -> None:
        """Closes all connections."""

    async def ask(self, commands: Iterable[Command]) -> list[Any]:
        """The reply to each command, in order; each is sent to the node that has its key.

        The key is a command's first argument, or that behind the number of keys of a script. StoreError when
        one of them fails; a slot that moves is followed for a second or so.
        """
        asked = list(commands)
        async with store_errors():
            if not self.nodes:
                await self.refresh()
            replies = await self._replies(asked)
            for attempt in range(1, _ATTEMPTS):
                again = [index for index, reply in enumerate(replies) if _is_elsewhere(reply, attempt)]
                if not again:
                    break
                await asyncio.sleep(_PAUSE * 2 ** (attempt - 1))
                await self.refresh()
                for index, reply in zip(again, await self._replies([asked[i] for i in again]), strict=True):
                    replies[index] = reply
            for reply in replies:
                if isinstance(reply, BaseException):
                    raise reply
        return replies

    async def ask_nodes(self, command: Command) -> list[Any]:
        """The reply of each node to a command without a key. StoreError when one of them fails."""
        async with store_errors():
            if not self.nodes:
                await self.refresh()
            replies = [(await _pipeline(node, [command]))[0] for node in self.nodes]
            for reply in replies:
                if isinstance(reply, BaseException):
                    raise reply
        return replies

    async def _replies(self, commands: Sequence[Command]) -> list[Any]:
        """Replies and errors, as they come."""
        replies: list[Any] = [None] * len(commands)
        by_node: dict[Node, list[int]] = {}
        for index, command in enumerate(commands):
            node = self.node_of(hash_slot(_key(command)))
            if node is None:
                replies[index] = StoreError("no node of the cluster has that slot: see CLUSTER INFO")
            else:
                by_node.setdefault(node, []).append(index)

        async def of(node: Node, indices: list[int]) -> None:
            for first in range(0, len(indices), _PIPELINE):
                part = indices[first : first + _PIPELINE]
                for index, reply in zip(
                    part, await _pipeline(node, [commands[i] for i in part]), strict=True
                ):
                    replies[index] = reply

        await asyncio.gather(*(of(node, indices) for node, indices in by_node.items()))
        for index, reply in enumerate(replies):
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                replies[index] = await self._asking(reply, commands[index])
        return replies

    async def _asking(self, where: AskError, command: Command) -> Any:
        """The reply of the node that is just being given the slot."""
        name = host_port(where.host, where.port)
        node = next((one for one in self.nodes if one.name == name), None)
        if node is None:
            return where
        return (await _pipeline(node, [("ASKING",), command]))[1]


class Single(Topology):
    """One server, or the primary that Sentinels name: whatever one client leads to."""

    def __init__(self, client: Redis) -> None:
        self._node = Node("", client)

    @property
    def nodes(self) -> list[Node]:
        """The one."""
        return [self._node]

    def node_of(self, slot: int) -> Node:
        """The one."""
        return self._node

    async def refresh(self) -> None:
        """Nothing: each new connection finds its server anew."""

    async def aclose(self) -> None:
        """Closes the connections to the server, and to the Sentinels."""
        await self._node.client.aclose()
        sentinels = getattr(self._node.client.connection_pool, "sentinel_manager", None)
        await self._node.client.connection_pool.disconnect()
        if sentinels is not None:
            await sentinels.aclose()


class Cluster(Topology):
    """The primaries of a cluster. One that is gone from it is closed."""

    def __init__(self, seeds: Sequence[tuple[str, int]], options: dict[str, Any]) -> None:
        """`seeds` are hosts and ports to ask first; `options` are redis-py's, for every connection."""
        self._seeds = seeds
        self._options = options
        self._nodes: dict[tuple[str, int], Node] = {}
        self._owners: list[Node | None] = [None] * CLUSTER_SLOTS
        self._lock = asyncio.Lock()

    @property
    def nodes(self) -> list[Node]:
        """Every primary that has slots."""
        return list(self._nodes.values())

    def node_of(self, slot: int) -> Node | None:
        """The primary that has the slot, as far as is known."""
        return self._owners[slot]

    async def refresh(self) -> None:
        """Asks the nodes that are known, then the seeds, until one answers; one question at a time."""
        seen = self.version
        async with self._lock:
            if self.version != seen:
                return  # somebody else asked meanwhile
            places = list(self._nodes)
            random.shuffle(places)  # or one that hangs would be asked first each time
            places += [one for one in self._seeds if one not in self._nodes]
            problems: list[str] = []
            for host, port in places:
                try:
                    shown = await self._slots(host, port)
                except (StoreError, RedisError, OSError, TimeoutError) as error:
                    if fault_of(error) is Fault.RIGHTS:
                        raise
                    problems.append(f"{host_port(host, port)}: {explain(error)}")
                else:
                    await self._take(host, shown)
                    return
            raise StoreError(f"no node of the cluster answers: {'; '.join(problems)}")

    async def _slots(self, host: str, port: int) -> list[Any]:
        """What a node says of who has which slots: [first, last, [host, port, id, …], replicas…] each."""
        known = self._nodes.get((host, port))
        client = known.client if known else self._client(host, port)
        try:
            # Not through redis-py's own reading of it, which wants every slot to have an owner.
            (shown,) = await _pipeline(Node("", client), [("CLUSTER", "SLOTS")])
        finally:
            if known is None:
                await client.aclose()
        if isinstance(shown, BaseException):
            raise shown
        if not shown:
            raise StoreError("it has no slots: is it part of a cluster?")
        return list(shown)

    async def _take(self, asked: str, shown: list[Any]) -> None:
        """Makes what a node says the truth. A host without a name is the one that was asked."""
        owners: list[Node | None] = [None] * CLUSTER_SLOTS
        nodes: dict[tuple[str, int], Node] = {}
        for first, last, primary, *_ in shown:
            host = (primary[0] or b"").decode()
            place = (asked if host in ("", "?") else host, int(primary[1]))
            node = nodes.get(place) or self._nodes.get(place)
            if node is None:
                node = Node(host_port(*place), self._client(*place))
            nodes[place] = node
            owners[first : last + 1] = [node] * (last + 1 - first)
        if owners != self._owners:
            self._owners = owners
            log.info(event("store.cluster", nodes=",".join(sorted(one.name for one in nodes.values()))))
        gone = [node for place, node in self._nodes.items() if place not in nodes]
        self._nodes = nodes
        self.version += 1
        for node in gone:
            await node.client.aclose()

    def _client(self, host: str, port: int) -> Redis:
        return Redis(host=host, port=port, **self._options)

    async def aclose(self) -> None:
        """Closes the connections to all nodes."""
        for node in self.nodes:
            await node.client.aclose()


def open_store(url: str, settings: StoreSettings | None = None) -> Topology:
    """What stands behind an address; OperatorError for what cannot be read. Nothing is sent yet."""
    address = StoreAddress.parse(url)
    if address.layout is Layout.CLUSTER:
        return Cluster(address.hosts, connection_options(address, settings or StoreSettings()))
    return Single(connect(url, settings))


def topology_of(store: Topology | Redis) -> Topology:
    """A store as a topology: a plain client is one server."""
    return Single(store) if isinstance(store, Redis) else store


async def _pipeline(node: Node, commands: Iterable[Command]) -> list[Any]:
    """Replies and errors of one node; an error for all of them when it does not answer."""
    asked = list(commands)
    pipeline = node.client.pipeline(transaction=False)
    for command in asked:
        pipeline.execute_command(*command)
    try:
        return list(await pipeline.execute(raise_on_error=False))
    except (RedisError, OSError, TimeoutError) as error:
        return [error] * len(asked)


def _key(command: Command) -> bytes:
    key = command[3] if str(command[0]).upper() in ("EVAL", "EVALSHA") else command[1]
    return key if isinstance(key, bytes) else str(key).encode()


def _is_elsewhere(reply: Any, attempt: int) -> bool:
    """Whether another attempt, at another node maybe, has a chance.

    A connection of the pool that has broken meanwhile gets a second attempt; a server that hangs does not.
    """
    if isinstance(reply, RedisConnectionError):
        return attempt == 1 and fault_of(reply) is Fault.SERVER
    return isinstance(reply, BaseException) and fault_of(reply) is Fault.SLOT
