"""What every listener has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from collector.engine import Engine, Limits
from collector.listeners.senders import Drops, Senders
from collector.listeners.settings import ListenerSettings
from collector.statsd.lines import Profile


def profile_of(settings: ListenerSettings, limits: Limits) -> Profile:
    """How the lines of a listener are read."""
    return Profile(
        gauges=settings.gauges,
        dialects=settings.dialects,
        naming=settings.names,
        meters=settings.meters,
        bare_names=settings.bare_names,
        keep_container=settings.keep_container,
        prefix=settings.prefix,
        tags=tuple(f"{key}:{value}" if value else key for key, value in settings.tags.items()),
        min_sample_rate=settings.min_sample_rate,
        longest_name=limits.name,
        longest_line=limits.line,
    )


class Listener(ABC):
    """An address that lines arrive at. Counts only ever grow; `_lines` and its kin are the event loop's."""

    def __init__(
        self, settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
    ) -> None:
        """`clock` tells wall time in seconds."""
        self.settings = settings
        self.url = str(settings.url)
        self.engine = engine
        self.clock = clock
        self.addresses: list[str] = []  # as bound, with the real ports
        self._lines = 0
        self._packets = 0
        self._bytes = 0
        self.senders = Senders(settings, engine, profile_of(settings, limits), clock, self.count_lines)

    @property
    def name(self) -> str:
        """The value of the label `listener`: the address as it was configured."""
        return self.url

    def drops(self) -> Drops:
        """What was dropped because of who sent it."""
        return self.senders.drops

    @property
    def kernel_drops(self) -> int:
        """What the kernel dropped before it could be received."""
        return 0

    @property
    def lines(self) -> int:
        """Lines received, good and bad."""
        return self._lines

    @property
    def packets(self) -> int:
        """Datagrams received, or reads from connections."""
        return self._packets

    @property
    def bytes(self) -> int:
        """Bytes received."""
        return self._bytes

    def count_lines(self, lines: int) -> None:
        """Counts lines that were taken."""
        self._lines += lines

    @abstractmethod
    async def open(self) -> None:
        """Binds and starts to receive; OperatorError if the address cannot be had."""

    @abstractmethod
    async def drain(self) -> None:
        """Stops, and takes all that the kernel has accepted by now."""

    @abstractmethod
    async def close(self) -> None:
        """Closes the sockets."""

    def status(self) -> dict[str, Any]:
        """What /api/v1/status shows of it."""
        return {
            "url": self.url,
            "addresses": self.addresses,
            "gauges": self.settings.gauges.value,
            "lines": self.lines,
            "packets": self.packets,
            "bytes": self.bytes,
            "kernel_drops": self.kernel_drops,
            **self.drops().status(),
        }
