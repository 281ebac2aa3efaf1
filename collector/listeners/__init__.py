"""Where lines arrive: sockets on one side, `engine.ingest` on the other.

settings   what a listener is told
sockets    names to addresses, receive buffers, kernel drops
base       what every listener has
udp, tcp   the transports
"""

from __future__ import annotations

from collections.abc import Callable

from collector.engine import Engine, Limits
from collector.listeners.base import Listener
from collector.listeners.settings import ListenerSettings
from collector.listeners.tcp import TcpListener
from collector.listeners.udp import UdpListener

__all__ = ["Listener", "ListenerSettings", "create"]


def create(
    settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
) -> Listener:
    """The listener for an address; `clock` tells wall time in seconds."""
    kinds = {"udp": UdpListener, "tcp": TcpListener}
    return kinds[settings.url.scheme](settings, engine, limits, clock)
