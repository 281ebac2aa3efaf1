"""What the store is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from annotated_types import Ge, Le, MinLen

from collector.units import DURATION, SIZE

EMBEDDED: Final = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTlsSettings:
    """How the servers of the store are known, and how we are known to them, with rediss:// and its kin."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    ca: Path | None = None
    """PEM file of the authorities whose servers are trusted; left out, those that the system trusts."""
    certificate: Path | None = None
    """PEM file of a certificate that is shown to the servers, where they ask for one."""
    key: Path | None = None
    """PEM file of its private key; left out when the certificate's file holds it too."""
    check_hostname: bool = True
    """Whether a server's certificate must name the host that was connected to. The nodes of a cluster, and
    what Sentinel names, are known by IP addresses, which few certificates name: false takes any certificate
    of the authorities in `ca`, so let these be your own."""


class Durability(StrEnum):
    """Who has to have a batch before it counts as confirmed."""

    PRIMARY = "primary"
    REPLICA = "replica"


class SpoolMode(StrEnum):
    """When batches go to disk."""

    ON_OUTAGE = "on_outage"
    ALWAYS = "always"
    OFF = "off"

    @classmethod
    def _missing_(cls, value: object) -> SpoolMode | None:
        return cls.OFF if value is False else None  # how YAML 1.1 reads `off`


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where the data goes."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    url: str = EMBEDDED
    """`embedded` starts a Valkey of our own in the state directory. Or the address of a Redis 6.2 or newer,
    or a Valkey: redis://user:password@host:6379/0, unix:///path/to.sock?db=0, a cluster as
    redis+cluster://host:6379,host:6379, Sentinels as redis+sentinel://host:26379,host:26379/service/0. With
    rediss://, rediss+cluster:// and rediss+sentinel:// it is all over TLS."""
    prefix: Annotated[str, MinLen(1)] = "m"
    """What every key starts with, so that several collectors with different data can share a server."""
    durability: Durability = Durability.PRIMARY
    """When a batch counts as confirmed. `primary`: when the server has applied it; what a failover then loses
    is sent again for two flushes. `replica`: when a replica has it too, which costs a round trip between the
    two for each flush; without a replica everything waits in the backlog."""
    user: str = ""
    """The ACL user, as it is: nothing is escaped here. It counts instead of one in the address."""
    password: str = ""
    """The password, as it is: ${credential:name} or ${file:/path} keep it out of this file."""
    sentinel_user: str = ""
    """The ACL user at the Sentinels, where they want one."""
    sentinel_password: str = ""
    """The password of the Sentinels; that of the servers is another."""
    tls: StoreTlsSettings = field(default_factory=StoreTlsSettings)
    """Certificates, with rediss:// and its kin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogSettings:
    """What is kept while the store is away."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    spool: SpoolMode = SpoolMode.ON_OUTAGE
    """When batches go to disk, into state_dir. `on_outage`: while the store is away, what exceeds `memory`,
    and at a stop all that it has not confirmed. `always`: every batch before it is sent, so that a kill of
    the collector loses nothing that was flushed; each flush then waits for the disk. `off`: never."""
    memory: Annotated[int, SIZE, Ge(2**20)] = 64 * 2**20
    """Bytes of batches held in memory while the store is away; what goes beyond it waits on disk. More of it
    spares the disk in short outages, and is what a kill in an outage can lose."""
    max_bytes: Annotated[int, SIZE, Ge(2**20)] = 512 * 2**20
    """Bytes of batches that wait for the store, in memory and, compressed, on disk. Beyond it the oldest are
    dropped, and counted in collector_lost_total{reason="backlog_full"}. 100,000 busy series make about 30 MB
    a flush, on disk a seventh of it."""
    max_age: Annotated[float, DURATION, Ge(60), Le(14 * 86400)] = 86400.0
    """Batches that have waited for longer are dropped, and counted as `backlog_expired`."""
