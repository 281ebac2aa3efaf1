"""What a listener is told: where it listens and how it reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final
from urllib.parse import urlsplit

from annotated_types import Ge, Gt, Le

from collector.model import GaugeMode
from collector.statsd.names import Dialect
from collector.units import DURATION, SIZE

SCHEMES: Final = ("udp", "tcp")
_PORT: Final = 8125


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: "udp://localhost:8125", "tcp://[::]:8125". Port 0 takes any free one."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Address:
        """Reads a URL; ValueError with a remedy otherwise."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not re.match(r"[a-z+]+://", text):
            raise ValueError('not an address: write it like "udp://localhost:8125"')
        try:
            parts = urlsplit(text)
            port = _PORT if parts.port is None else parts.port
        except ValueError as error:
            raise ValueError(f'"{text}" is not an address: {error}') from None
        if parts.scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f'"{parts.scheme}://" is not known: use one of {known}')
        if not parts.hostname or parts.path or parts.query or parts.username:
            raise ValueError(f'"{text}" is not an address: write it like "udp://localhost:8125"')
        return cls(parts.scheme, parts.hostname, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, object]:
        read = {"type": "no-info", "function": cls.parse}
        return {
            "type": "function-plain",
            "function": read,
            "serialization": {"type": "to-string"},
            "metadata": {"pydantic_js_functions": [_address_schema]},
        }


def _address_schema(schema: object, handler: object) -> dict[str, object]:
    return {
        "type": "string",
        "pattern": f"^({'|'.join(SCHEMES)})://.+$",
        "examples": ["udp://localhost:8125", "tcp://0.0.0.0:8125"],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """One listener. In its short form it is its URL alone."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    url: Address
    """Where to listen: udp://host:port or tcp://host:port. `localhost` listens on 127.0.0.1 and on ::1, since
    clients disagree on which of them the name means."""
    gauges: GaugeMode = GaugeMode.STATSD
    """What a sign before a gauge's value means. `statsd`: "g:-3|g" takes 3 away from the gauge, as etsy's
    server does. `dogstatsd`: it sets the gauge to -3. The two cannot be told apart on the wire."""
    dialects: frozenset[Dialect] = frozenset()
    """Dialects that put tags into the name: influx "n,k=v", signalfx "n[k=v]", librato "n#k=v", graphite
    "n;k=v". A name that reads as one that is not listed here is refused (`dialect_off`)."""
    sanitise: bool = True
    """Write blanks in names as "_" and "/" as "-", as etsy's server does."""
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
    receive_buffer: Annotated[int, SIZE, Ge(0), Le(2**30)] = 8 * 2**20
    """UDP: bytes that the kernel is asked to hold while the collector is busy. What it grants is logged and
    shown in the status; without the right to go beyond net.core.rmem_max it grants at most that, doubled."""
    max_connections: Annotated[int, Ge(1)] = 1000
    """TCP: connections at one time. More are closed at once and counted."""
    idle_timeout: Annotated[float, DURATION, Gt(0)] = 600.0
    """TCP: a connection that has sent nothing for so long is closed. Clients connect again by themselves; a
    peer that has vanished never says so."""
