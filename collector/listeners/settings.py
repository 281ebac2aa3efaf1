"""What a listener is told: where it listens, how it reads, whom it hears."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from annotated_types import Ge, Gt, Le

from collector.addresses import Address, FileMode, Network
from collector.model import GaugeMode
from collector.statsd.names import Dialect, Naming
from collector.units import DURATION, SIZE

_ALL_MAY_WRITE: Final = FileMode(0o666)
# Settings of some transports alone: behind the others nobody is to think himself safe.
ONLY_OF: Final = {
    "allow": ("udp", "tcp"),
    "sender_tag": ("udp", "tcp"),
    "tls": ("tcp",),
    "mode": ("unixgram", "unixstream"),
}
PUBLIC_RATE: Final = 200_000  # lines per second and sender, where others than this machine can send


class SenderTag(StrEnum):
    """What of a sender becomes a tag of its lines."""

    NONE = "none"
    ADDRESS = "address"
    HOST = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS of a TCP listener. The files are read again when they have changed."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    certificate: Path
    """PEM file of the certificate that clients are shown, followed by those in between."""
    key: Path | None = None
    """PEM file of its private key; left out when the certificate's file holds it too."""
    client_ca: Path | None = None
    """PEM file of the authorities whose clients are let in. Without it any client is, with it only one that
    shows a certificate of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """One listener. In its short form it is its URL alone."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    url: Address
    """Where to listen: udp://host:port, tcp://host:port, unixgram:///path (datagrams) or unixstream:///path.
    `localhost` listens on 127.0.0.1 and on ::1, since clients disagree on which of them the name means."""
    gauges: GaugeMode = GaugeMode.STATSD
    """What a sign before a gauge's value means. `statsd`: "g:-3|g" takes 3 away from the gauge, as etsy's
    server does. `dogstatsd`: it sets the gauge to -3. The two cannot be told apart on the wire."""
    dialects: frozenset[Dialect] = frozenset()
    """Dialects that put tags into the name: influx "n,k=v", signalfx "n[k=v]", librato "n#k=v", graphite
    "n;k=v". A name that reads as one that is not listed here is refused (`dialect_off`)."""
    names: Naming = Naming.SANITISE
    """`sanitise`: blanks in names become "_" and "/" becomes "-", as etsy's server does. `keep`: names stay
    as they come. `strict`: a name of more than letters, digits, "_", "." and "-" is refused (`bad_name`)."""
    prefix: str = ""
    """What goes before every name, as it is: "web." makes "hits" into "web.hits"."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags for all that comes here, events and service checks included. A line's own tag of the same key
    counts instead."""
    sender_tag: SenderTag = SenderTag.NONE
    """UDP and TCP: tag each line with where it came from, as `sender`. `address`: the sender's IP address.
    `host`: its name by reverse look-up, which whoever owns the address can choose; its address where it has
    none. It makes a series for each sender."""
    meters: bool = False
    """Take the type "m" as another word for "c"; else it is refused (`bad_type`)."""
    bare_names: bool = False
    """Take a line that is a name alone as a count of one; else it is refused (`no_value`)."""
    keep_container: bool = False
    """Keep the container id that Datadog's clients send, as the tag `container_id`. It makes a series for
    each container."""
    min_sample_rate: Annotated[float, Gt(0), Le(1)] = 1e-9
    """The smallest sample rate taken; lines below it are refused (`bad_rate`). A line with a rate of 0.001
    counts a thousand times, so who may send tiny rates may send any number."""
    allow: tuple[Network, ...] = ()
    """UDP and TCP: networks that are heard; an empty list means all. What others send is dropped, and
    counted."""
    sender_rate: Annotated[int, Ge(0)] | None = None
    """Lines per second that one sender may send, a second's worth of them at once. What goes beyond it is
    dropped and counted, so that one sender's flood costs the others nothing. A sender is an IP address, of
    IPv6 a /64 network, of a unix socket a process. 0 means no limit; so does leaving it out where only this
    machine can reach the listener, and elsewhere 200000."""
    tls: TlsSettings | None = None
    """TCP: TLS, and which clients are let in by their certificates. UDP has nothing of the kind."""
    mode: FileMode = _ALL_MAY_WRITE
    """Unix sockets: the permissions of the socket file. Who may write to it may send."""
    receive_buffer: Annotated[int, SIZE, Ge(0), Le(2**30)] = 8 * 2**20
    """UDP: bytes that the kernel is asked to hold while the collector is busy. What it grants is logged and
    shown in the status; without the right to go beyond net.core.rmem_max it grants at most that, doubled."""
    max_connections: Annotated[int, Ge(1)] = 1000
    """Streams: connections at one time. With all taken, a new sender gets the place of the longest silent
    connection of the sender who has most; one who has as many as any is closed at once. Both are counted."""
    idle_timeout: Annotated[float, DURATION, Gt(0)] = 600.0
    """Streams: a connection that has sent nothing for so long is closed. Clients connect again by themselves;
    a peer that has vanished never says so."""

    @property
    def rate(self) -> int:
        """Lines per second and sender; 0 without a limit."""
        if self.sender_rate is not None:
            return self.sender_rate
        return 0 if self.url.local else PUBLIC_RATE
