"""What the store is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Ge, MinLen

from collector.units import SIZE

EMBEDDED: Final = "embedded"
SCHEMES: Final = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the data goes."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    url: str = EMBEDDED
    """`embedded` starts a Valkey of our own in the state directory. Or the address of a Redis 6.2 or newer,
    or a Valkey: redis://user:password@host:6379/0, rediss://… for TLS, unix:///path/to.sock?db=0."""
    prefix: Annotated[str, MinLen(1)] = "m"
    """What every key starts with, so that several collectors with different data can share a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogSettings:
    """What is kept while the store is away."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    max_bytes: Annotated[int, SIZE, Ge(2**20)] = 512 * 2**20
    """Bytes of batches held in memory until the store has confirmed them. Beyond it the oldest are dropped,
    and counted in collector_lost_total{reason="backlog_full"}. 100,000 busy series: about 15 MB a flush."""
