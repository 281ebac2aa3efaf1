"""Who sends: who is heard, how much of each is taken, and how a sender's lines are tagged.

    key --> Sender --> Budget          key: an IP address, or the process at the other end of a unix socket
                                       Budget: lines it may still send; addresses of one IPv6 /64 share one

The table is bounded, since addresses can be forged: senders beyond it share one budget and carry no tag,
while those that are known go on. Who has sent nothing for a while makes room.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final
from weakref import WeakValueDictionary

from collector.engine import Engine
from collector.engine.generations import Generations
from collector.listeners.hostnames import HostNames
from collector.listeners.settings import ListenerSettings, SenderTag
from collector.logfmt import Every, event
from collector.statsd.lines import Profile
from collector.statsd.names import clean_tag

log = logging.getLogger(__name__)

MOST_SENDERS: Final = 20_000
_TURN: Final = 600.0  # seconds; a silent sender is forgotten after one to two of them
_MOST_NAMED: Final = 100  # senders whose dropped lines are counted one by one
_SHOWN: Final = 10  # of them in the status
_MOST_HELD: Final = 4 * 2**20  # bytes that wait for host names
_LOG_SECONDS: Final = 60.0
_SENDER: Final = "sender"  # the tag
_SITE_BITS: Final = 64  # of an IPv6 address: one host may have all addresses below
_REMEDIES: Final = {
    "not_allowed": "add its network to allow",
    "sender_rate": "raise sender_rate if it may send so much",
}

DROPS: Final = tuple(_REMEDIES)  # the values of the label `reason`


class SenderClass(StrEnum):
    """Where a sender is: what drops are counted by."""

    LOOPBACK = "loopback"
    PRIVATE = "private"
    PUBLIC = "public"
    LOCAL = "local"  # a process, over a unix socket


# Where addresses are; others are public.
PLACES: Final = tuple(
    (ipaddress.ip_network(text), kind)
    for kind, texts in (
        (SenderClass.LOOPBACK, ("127.0.0.0/8", "::1")),
        (SenderClass.PRIVATE, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")),
        (SenderClass.PRIVATE, ("100.64.0.0/10", "fc00::/7", "fe80::/10")),
    )
    for text in texts
)


def place_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> SenderClass:
    """The class of an address."""
    return next((kind for network, kind in PLACES if address in network), SenderClass.PUBLIC)


@dataclass(slots=True, weakref_slot=True)
class Budget:
    """A token bucket: lines that may come now. It may be overdrawn by one datagram."""

    credit: float
    at: float  # Unix seconds of the last filling

    def fill(self, now: float, rate: int) -> None:
        """Adds `rate` lines a second, up to one second's worth; a clock that steps back adds nothing."""
        self.credit = min(float(rate), self.credit + max(0.0, now - self.at) * rate)
        self.at = now


@dataclass(slots=True, eq=False)
class Sender:
    """One sender. `held` is what came before its name was known, None when there is nothing to wait for."""

    name: str
    kind: SenderClass
    allowed: bool
    budget: Budget
    profile: int
    held: list[tuple[bytes, Any]] | None = None
    naming: asyncio.Task[None] | None = None
    connections: int = 0


@dataclass(slots=True)
class Drops:
    """Lines dropped because of who sent them."""

    lines: Counter[tuple[str, SenderClass]] = field(default_factory=Counter)
    named: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, sender: Sender, lines: int) -> None:
        """Counts by reason and class, and by sender for the first ones."""
        self.lines[reason, sender.kind] += lines
        if sender.name in self.named or len(self.named) < _MOST_NAMED:
            self.named[sender.name] += lines

    def status(self) -> dict[str, Any]:
        """What /api/v1/status shows of them."""
        by_reason: Counter[str] = Counter()
        for (reason, _), lines in self.lines.items():
            by_reason[reason] += lines
        most = [{"sender": name, "lines": lines} for name, lines in self.named.most_common(_SHOWN)]
        return {"dropped": dict(by_reason), "dropped_most": most}


class Senders:
    """All senders of a listener."""

    def __init__(
        self,
        settings: ListenerSettings,
        engine: Engine,
        profile: Profile,
        clock: Callable[[], float],
        count_lines: Callable[[int], None],
    ) -> None:
        """`count_lines` is told of lines that were held and are taken later."""
        self._settings = settings
        self._url = str(settings.url)
        self._rate = settings.rate
        self._engine = engine
        self._profile = profile
        self._clock = clock
        self._count_lines = count_lines
        self.shared_profile = engine.add_profile(profile)
        self.drops = Drops()
        self._table: Generations[str, Sender] = Generations()
        self._budgets: WeakValueDictionary[str, Budget] = WeakValueDictionary()
        self._strangers: dict[tuple[SenderClass, bool], Sender] = {}
        self._turn_at = time.monotonic() + _TURN
        self._names = HostNames()
        self._naming: set[asyncio.Task[None]] = set()
        self._held_bytes = 0
        self._logs = {reason: Every(_LOG_SECONDS) for reason in DROPS}

    @property
    def matter(self) -> bool:
        """Whether it makes a difference who sends; else datagrams need not be told apart."""
        return bool(self._rate or self._settings.allow or self.tagged)

    @property
    def tagged(self) -> bool:
        """Whether each sender has a profile of his own."""
        return self._settings.sender_tag is not SenderTag.NONE

    @property
    def kinds(self) -> tuple[SenderClass, ...]:
        """The classes that this listener's senders can be of."""
        if self._settings.url.unix:
            return (SenderClass.LOCAL,)
        return (SenderClass.LOOPBACK, SenderClass.PRIVATE, SenderClass.PUBLIC)

    # ------------------------------------------------------------------ lines

    def ingest(self, data: bytes, key: str, peer: Any, now: float) -> int:
        """Takes a datagram of the sender `key`, or drops it; the number of lines taken."""
        return self.take(self.of(key), data, peer, now)

    def take(self, sender: Sender, data: bytes, peer: Any, now: float) -> int:
        """Takes lines of a sender, or drops them; the number of lines taken now."""
        if not sender.allowed:
            self._drop("not_allowed", sender, data)
            return 0
        budget = sender.budget
        if self._rate:
            if budget.at != now:  # many datagrams come at one time
                budget.fill(now, self._rate)
            if budget.credit <= 0:
                self._drop("sender_rate", sender, data)
                return 0
        if sender.held is not None:
            self._hold(sender, data, peer)
            return 0
        lines = self._engine.ingest(sender.profile, data, peer, now)
        budget.credit -= lines
        return lines

    def _drop(self, reason: str, sender: Sender, data: bytes) -> None:
        lines = data.count(b"\n") + (not data.endswith(b"\n"))
        self.drops.add(reason, sender, lines)
        self.report(reason, sender.name)

    def report(self, reason: str, sender: str) -> None:
        """Logs that lines of a sender are dropped: once a minute and reason."""
        if self._logs[reason].admit(time.monotonic()) is not None:
            fields = {"reason": reason, "sender": sender, "remedy": _REMEDIES[reason]}
            log.warning(event("listener.dropped", url=self._url, **fields))

    # ------------------------------------------------------------------ the table

    def of(self, key: str) -> Sender:
        """The sender of a key."""
        return self._table.get(key) or self._meet(key)

    def _meet(self, key: str) -> Sender:
        now = time.monotonic()
        if now >= self._turn_at:
            self._turn_at = now + _TURN
            self._turn()
        kind, allowed, site = self._judge(key)
        if len(self._table) >= MOST_SENDERS:
            self._engine.limit_hits["senders"] += 1
            return self._stranger(kind, allowed)
        budget = self._budgets.get(site)
        if budget is None:
            budget = self._budgets[site] = Budget(float(self._rate), self._clock())
        sender = Sender(key, kind, allowed, budget, self.shared_profile)
        self._table[key] = sender
        if allowed and self._settings.sender_tag is SenderTag.ADDRESS:
            self._tag(sender, key)
        elif allowed and self._settings.sender_tag is SenderTag.HOST:
            sender.held = []
            sender.naming = asyncio.get_running_loop().create_task(self._name(sender))
            self._naming.add(sender.naming)
            sender.naming.add_done_callback(self._naming.discard)
        return sender

    def _judge(self, key: str) -> tuple[SenderClass, bool, str]:
        """(class, whether it is heard, what its budget is for) of a key."""
        if self._settings.url.unix:
            return SenderClass.LOCAL, True, key
        address = ipaddress.ip_address(key.partition("%")[0])
        allow = self._settings.allow
        allowed = not allow or any(address in network for network in allow)
        site = key
        if address.version == 6:
            site = f"{int(address) >> (128 - _SITE_BITS):x}"
        return place_of(address), allowed, site

    def _stranger(self, kind: SenderClass, allowed: bool) -> Sender:
        """Who stands for all that the table has no room for."""
        found = self._strangers.get((kind, allowed))
        if found is None:
            budget = Budget(float(self._rate), self._clock())
            found = Sender(f"others ({kind})", kind, allowed, budget, self.shared_profile)
            self._strangers[kind, allowed] = found
        return found

    def _turn(self) -> None:
        for key, sender in self._table.turn().items():
            if sender.connections or sender.held is not None:
                self._table[key] = sender
            elif sender.profile != self.shared_profile:
                self._engine.forget_profile(sender.profile)

    # ------------------------------------------------------------------ tags

    def _tag(self, sender: Sender, value: str) -> None:
        tag, _ = clean_tag(_SENDER, value)
        others = [one for one in self._profile.tags if one.partition(":")[0] != _SENDER]
        sender.profile = self._engine.add_profile(replace(self._profile, tags=(*others, tag)))

    def _hold(self, sender: Sender, data: bytes, peer: Any) -> None:
        assert sender.held is not None
        sender.held.append((data, peer))
        self._held_bytes += len(data)
        if self._held_bytes > _MOST_HELD:
            self._settle(sender, sender.name)

    async def _name(self, sender: Sender) -> None:
        self._settle(sender, await self._names.of(sender.name))

    def _settle(self, sender: Sender, value: str) -> None:
        """Tags a sender and takes what was held of it, in order."""
        held, sender.held = sender.held, None
        if held is None:
            return  # settled before, by its address
        self._tag(sender, value)
        for data, peer in held:
            self._held_bytes -= len(data)
            self._count_lines(self.take(sender, data, peer, self._clock()))

    async def settle(self) -> None:
        """Waits for the names that are being looked up, and takes what was held."""
        if self._naming:
            await asyncio.wait(self._naming)
