"""Where lines arrive: sockets on one side, `engine.ingest` on the other.

settings      what a listener is told
hostnames     IP addresses to names
senders       who is heard, how much of each is taken, how a sender's lines are tagged
sockets       names to addresses, receive buffers, kernel drops
unix          socket files
tls           certificates
base          what every listener has
threads       threads of the engine that empty datagram sockets
datagrams     UDP, unix datagrams
connection    one client of a stream
streams       TCP, unix streams
"""

from __future__ import annotations

from collections.abc import Callable

from collector.engine import Engine, Limits
from collector.listeners.base import Listener
from collector.listeners.datagrams import DatagramListener
from collector.listeners.settings import ListenerSettings
from collector.listeners.streams import StreamListener

__all__ = ["Listener", "ListenerSettings", "create"]


def create(
    settings: ListenerSettings, engine: Engine, limits: Limits, clock: Callable[[], float]
) -> Listener:
    """The listener for an address; `clock` tells wall time in seconds."""
    kind = DatagramListener if settings.url.datagrams else StreamListener
    return kind(settings, engine, limits, clock)
