"""What goes to one node: its shards' batches, over one connection, at a pace of its own.

    session   connect, ask what the server is and whether it takes writes
    round     open the shards that are new here or have waited: what is the last batch that you have of ours?
              send what the opened ones have, a bounded number of bytes ahead of the replies
              sleep until there is more

Whatever goes wrong ends the session, and the next one begins with the same questions, after a pause that
grows. Only what is wrong with one slot (it moves to another node, say) is that shard's matter alone: it is
closed here, and opened again after a pause, here or in the lane of another node.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from collector.errors import StoreError
from collector.logfmt import event
from collector.store.client import check_primary, end_if_cancelled, exchange, reply_of, send
from collector.store.encode import SCRIPT, SEQUENCE_SECONDS, Batch
from collector.store.faults import Fault, RightsError, explain, fault_of, lacks_right
from collector.store.keys import KeySpace
from collector.store.outbox import Outbox
from collector.store.rights import When, may_write
from collector.store.server import KEEP_ALL, Server
from collector.store.shard import Shard
from collector.store.topology import Node

log = logging.getLogger(__name__)

_IN_FLIGHT: Final = 512 * 1024  # bytes sent ahead of their replies
_TOGETHER: Final = 128 * 1024  # bytes sent at once, for each time waits for a turn of the event loop
_WAIT_MS: Final = 2000  # for a replica; below TIMEOUT, which would take the server for gone
_PING_SECONDS: Final = 5.0  # how long an idle connection is believed
FIRST_PAUSE: Final = 0.1  # seconds before the second try
_LONGEST_PAUSE: Final = 5.0
_PARKED: Final = 15.0  # where somebody has to change a right first


@dataclass(slots=True)
class _Applied:
    """A batch that the server has applied, now or before, and what it said about single operations."""

    shard: Shard
    batch: Batch
    applied: bool
    errors: list[bytes]


class Owner(Protocol):
    """What a lane asks of the sender."""

    def owns(self, lane: Lane, shard: Shard) -> bool:
        """Whether the node of a lane has the shard, and no other lane still has it open."""
        ...

    async def check_schema(self, lane: Lane) -> None:
        """Raises StoreError when the store is of another version."""
        ...

    def changed(self, lane: Lane) -> None:
        """The lane is up now, or down, or could use a fresh look at who has what."""
        ...

    def rested(self, lane: Lane) -> None:
        """The lane has sent all that it has."""
        ...


class Lane:
    """One node's part of an outbox; `run` is its task."""

    def __init__(self, node: Node, keys: KeySpace, outbox: Outbox, owner: Owner, *, replicated: bool) -> None:
        """With `replicated` a batch counts as confirmed once a replica has it."""
        self.node = node
        self.up = False
        self.error = ""  # why it is not up, or a shard of it waits
        self.opened: dict[bytes, Shard] = {}  # by the key of their last batch: earlier starts have shards too
        self.wake = asyncio.Event()
        self._keys = keys
        self._outbox = outbox
        self._owner = owner
        self._replicated = replicated
        self._applied: list[_Applied] = []  # what a replica has yet to have
        self._held: dict[bytes, tuple[float, float]] = {}  # shard -> (until when it waits, for how long)
        self._server: Server | None = None  # of the last session
        self._heard = 0.0  # when the node last answered
        self._silent = 0.0  # seconds from then to the beginning of this session
        self._flying: deque[tuple[Shard, Batch]] = deque()  # sent, and not replied to
        self._missed: dict[bytes, int] = {}  # shard -> number of the last of these when a session ended
        self._progress = False  # whether a batch was confirmed in this session

    async def run(self) -> None:
        """Sends what its shards have, for ever; comes back from every failure."""
        pause = FIRST_PAUSE
        while True:
            self._progress = False
            began = time.monotonic()
            try:
                await self._session()
            except (TimeoutError, StoreError, RedisError, OSError) as error:
                parked = fault_of(error) is Fault.RIGHTS
                # One that lets us in and then refuses each batch must not be asked ten times a second.
                if self._progress or time.monotonic() - began > 2 * _LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                end_if_cancelled()
                self._down(explain(error))
                await asyncio.sleep(_PARKED if parked else pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _down(self, text: str) -> None:
        if self.up or text != self.error:
            held = {"batches": self._outbox.pending_batches, "bytes": self._outbox.pending_bytes}
            log.warning(event("store.away", **self._named, error=text, **held))
        self.up = False
        self.error = text
        self._owner.changed(self)

    @property
    def _needs(self) -> tuple[When, ...]:
        return (When.REPLICA,) if self._replicated else ()

    @property
    def _named(self) -> dict[str, str]:
        return {"node": self.node.name} if self.node.name else {}

    # ------------------------------------------------------------------ a session

    async def _session(self) -> None:
        """One connection: rounds until it fails."""
        pool = self.node.client.connection_pool
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        self._silent = time.monotonic() - self._heard
        try:
            await self._rehearse(connection)
            await self._owner.check_schema(self)
            server = await self._greet(connection)
            while True:
                self.wake.clear()
                went_back = await self._open(connection)
                self._look_at(server, went_back)
                if self.up:
                    await self._rehearse(connection)
                else:
                    self._up()
                await self._send(connection)
                self._owner.rested(self)
                await self._wait(connection)
        finally:
            self._missed.update({shard.sequence: batch.seq for shard, batch in self._flying})
            for shard in (*self.opened.values(), *(shard for shard, _ in self._flying)):
                shard.flying = 0
            self._flying.clear()
            self._applied.clear()
            self.opened.clear()
            await connection.disconnect(nowait=True)
            await pool.release(connection)

    def _up(self) -> None:
        log.info(event("store.up", **self._named, pending=self._outbox.pending_batches))
        self.up = True
        self.error = ""
        self._owner.changed(self)

    async def _greet(self, connection: Any) -> Server:
        """Gives the server our script, and asks what it is."""
        loaded, info = await exchange(connection, [(b"SCRIPT", b"LOAD", SCRIPT), (b"INFO",)])
        for reply in (loaded, info):
            if isinstance(reply, Exception):
                raise reply
        return Server.parse(info.decode("utf-8", "replace"))

    async def _rehearse(self, connection: Any) -> None:
        """Asks whether the server would take a batch now; raises what is in the way.

        An operation that is refused within the script is lost, so rights are looked at before it is sent.
        """
        await check_primary(self.node.client, connection)
        shard = next((shard for shard in self._outbox.shards if self._owner.owns(self, shard)), None)
        if shard is None:
            return
        answer = await may_write(connection, self._keys, shard.sequence, self._needs)
        if answer.missing:
            raise RightsError(str(answer))
        if answer.refused is not None and fault_of(answer.refused) is not Fault.SLOT:
            raise answer.refused
        self._heard = time.monotonic()

    def _look_at(self, server: Server, went_back: bool) -> None:
        """Warns of what the server may do to the data; once, when a session begins."""
        before, self._server = self._server, server
        if before is server:
            return
        if server.evicts and (before is None or before.run_id != server.run_id):
            log.warning(event("store.evicts", **self._named, policy=server.policy, remedy=KEEP_ALL))
        restarted = before is not None and server.restarted_since(before, self._silent)
        if restarted and went_back and server.may_double:
            remedy = "run BGREWRITEAOF on it now, before it starts again: docs/store.md says why"
            log.warning(event("store.unclean_restart", **self._named, server=server.shown, remedy=remedy))

    # ------------------------------------------------------------------ shards

    async def _open(self, connection: Any) -> bool:
        """Asks for the last batch of each shard that is not open yet; whether the server lost any.

        A batch was lost if it was confirmed, or under way when the last session ended, and is not there now.
        """
        self._hand_over()
        now = time.monotonic()
        fresh = [
            shard
            for shard in self._outbox.shards
            if shard.sequence not in self.opened
            and self._held.get(shard.sequence, (0.0,))[0] <= now
            and self._owner.owns(self, shard)
        ]
        if not fresh:
            return False
        replies = await exchange(connection, [(b"GET", shard.sequence) for shard in fresh])
        known = [one for one, reply in zip(fresh, replies, strict=True) if isinstance(reply, bytes)]
        await self._trust(connection, known)
        lost = False
        for shard, reply in zip(fresh, replies, strict=True):
            if isinstance(reply, Exception):
                self._hold(shard, reply)
                continue
            has = -1 if reply is None else int(reply)
            self._progress |= has > shard.confirmed  # applied, and the reply was lost
            lost |= max(has, 0) < max(shard.confirmed, self._missed.pop(shard.sequence, 0))
            self._outbox.align(shard, has)
            self.opened[shard.sequence] = shard
            if not shard.ready:
                self._release(shard)
        return lost

    def _hand_over(self) -> None:
        """Closes the shards that are another lane's now. Nothing of them is under way here."""
        ours = {shard.sequence for shard in self._outbox.shards if self._owner.owns(self, shard)}
        gone = self.opened.keys() - ours
        for sequence in gone:
            del self.opened[sequence]
        for sequence in self._held.keys() - ours:
            del self._held[sequence]
        if gone:
            self._owner.changed(self)

    def _hold(self, shard: Shard, error: Exception) -> None:
        """Closes a shard for a while; raises what is wrong with more than its slot."""
        if fault_of(error) is not Fault.SLOT:
            raise error
        self.opened.pop(shard.sequence, None)
        _, waited = self._held.get(shard.sequence, (0.0, FIRST_PAUSE / 2))
        pause = min(2 * waited, _LONGEST_PAUSE)
        self._held[shard.sequence] = time.monotonic() + pause, pause
        self.error = explain(error)
        if waited < _LONGEST_PAUSE == pause:
            log.warning(event("store.slot_away", **self._named, shard=shard.number, error=self.error))
        self._owner.changed(self)

    def _release(self, shard: Shard) -> None:
        """The shard is well."""
        self._held.pop(shard.sequence, None)
        if self.up and not self._held:
            self.error = ""

    async def _send(self, connection: Any) -> None:
        """Sends all pending batches, a bounded number of bytes ahead of the replies."""
        packed: list[bytes] = []
        unsent = ahead = 0
        for shard in list(self.opened.values()):
            while self._owner.owns(self, shard) and shard.sequence in self.opened:
                following = shard.next_to_send()
                if following is None:
                    break
                batch, prev = following
                self._flying.append((shard, batch))
                packed += batch.command(prev)
                unsent += batch.size
                if unsent >= _TOGETHER:
                    await send(connection, packed)
                    packed, ahead, unsent = [], ahead + unsent, 0
                while ahead > _IN_FLIGHT:
                    ahead -= await self._settle(connection)
        if packed:
            await send(connection, packed)
        while self._flying:
            await self._settle(connection)
        if self._applied:
            await self._replicate(connection)

    async def _settle(self, connection: Any) -> int:
        """Reads the reply to the oldest batch under way; raises, and so starts a new session, unless it was
        confirmed or is refused because of its slot. The batch's size.
        """
        reply = await reply_of(connection)
        shard, batch = self._flying.popleft()
        if isinstance(reply, Exception) or shard.sequence not in self.opened:
            shard.flying -= 1
            # Once one is refused, so are those of its shard behind it.
            if isinstance(reply, Exception) and shard.sequence in self.opened:
                self._hold(shard, reply)
            return batch.size
        outcome, number, *errors = reply
        if outcome < 0:
            shard.flying -= 1
            raise StoreError(f"the server has batch {number}, not the one before {batch.seq}")
        done = _Applied(shard, batch, outcome > 0, errors)
        if self._replicated:
            self._applied.append(done)
        else:
            self._confirm(done)
        self._progress = True
        self._heard = time.monotonic()
        self._release(shard)
        for error in errors:
            if lacks_right(error):
                raise RightsError("a right was taken away while a batch was written")
        return batch.size

    def _confirm(self, done: _Applied) -> None:
        assert done.shard.ready[0] is done.batch
        self._outbox.settle(done.shard, applied=done.applied, errors=done.errors)

    async def _trust(self, connection: Any, shards: Sequence[Shard]) -> None:
        """With `durability: replica`, makes sure that a replica has what the server says that it has.

        WAIT asks for what this connection has written, so it writes something; what came before that was
        replicated before it.
        """
        if self._replicated and shards:
            await exchange(
                connection, [(b"EXPIRE", shard.sequence, b"%d" % SEQUENCE_SECONDS) for shard in shards]
            )
            await self._replicate(connection)

    async def _replicate(self, connection: Any) -> None:
        """Confirms what was applied once a replica has it: one WAIT for all of it."""
        (replicas,) = await exchange(connection, [(b"WAIT", b"1", b"%d" % _WAIT_MS)])
        if isinstance(replicas, Exception):
            raise replicas
        if replicas < 1:
            raise StoreError(
                f"no replica has the batches after {_WAIT_MS / 1000:g} s: connect one to the server, "
                f"or set redis.durability to primary"
            )
        for done in self._applied:
            self._confirm(done)
        self._applied.clear()

    async def _wait(self, connection: Any) -> None:
        """Waits for the next commit, or until a shard was held for long enough; now and then asks whether the
        server is still there.
        """
        end_if_cancelled()
        now = time.monotonic()
        due = [until - now for until, _ in self._held.values() if until > now]
        try:
            async with asyncio.timeout(min(_PING_SECONDS, *due) if due else _PING_SECONDS):
                await self.wake.wait()
        except TimeoutError:
            (reply,) = await exchange(connection, [(b"PING",)])
            if isinstance(reply, Exception):
                raise reply from None
            self._heard = time.monotonic()
