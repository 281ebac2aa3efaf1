"""All settings: the settings of the parts, put together."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le
from pydantic import AfterValidator

from collector.addresses import Address
from collector.embedded import EmbeddedSettings
from collector.engine import Limits
from collector.http_settings import HttpSettings
from collector.listeners.settings import ListenerSettings
from collector.retention import RetentionSettings
from collector.statsd.names import clean_tag
from collector.store.settings import BacklogSettings, StoreSettings
from collector.units import DURATION


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LISTEN = (
    ListenerSettings(url=Address("udp", "localhost", 8125)),
    ListenerSettings(url=Address("tcp", "localhost", 8125)),
)


def _divides_a_minute(seconds: float) -> float:
    """Windows are aligned to the clock: they must fit into a minute, which is what a set's key covers."""
    if seconds != int(seconds) or 60 % int(seconds):
        raise ValueError("must be whole seconds that divide a minute: try 10s")
    return seconds


def _tag_value(name: bool | str) -> bool | str:
    """A name stands in a tag as it is."""
    if isinstance(name, str) and (not name or clean_tag("node", name)[1]):
        raise ValueError("must be true, false or a name without commas, pipes and blanks at its ends")
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One collector."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    listen: tuple[ListenerSettings, ...] = _LISTEN
    """Where lines arrive: any number of listeners, each as its URL alone or in the long form."""
    node_tag: Annotated[bool | str, AfterValidator(_tag_value)] = False
    """Tags every series, event and check with the collector that took it, as `node`: true with the host's
    name, or with the name given here. Collectors on one store add up; with it each of their values can be
    seen too, and a sum over them is a sum over series. It multiplies the series by the collectors."""
    flush_interval: Annotated[float, DURATION, Ge(1), Le(60), AfterValidator(_divides_a_minute)] = 10.0
    """How often windows are written, and the finest resolution that is kept: whole seconds that divide a
    minute. A kill loses at most the open window; a shorter one costs more writes and more memory in the
    store."""
    state_dir: Path = Path("~/.local/state/collector")
    """Where the embedded server and the backlog keep their data. One collector to a directory: a second one
    is refused."""
    redis: StoreSettings = field(default_factory=StoreSettings)
    """Where the data goes."""
    embedded: EmbeddedSettings = field(default_factory=EmbeddedSettings)
    """The embedded server, when redis.url is `embedded`."""
    backlog: BacklogSettings = field(default_factory=BacklogSettings)
    """What is kept while the store is away."""
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    """How long what is stored, by kind."""
    rules: tuple[Path, ...] = ()
    """Rule files, read in this order; a relative path starts at the configuration's directory. Of the rules
    in their `series`, the first that matches a series and has an action decides about it."""
    http: HttpSettings = field(default_factory=HttpSettings)
    """The HTTP API."""
    limits: Limits = field(default_factory=Limits)
    """Bounds on what clients can make the collector hold."""
    idle_expiry: Annotated[float, DURATION, Ge(1)] = 3600.0
    """A series that was not sent for so long is no longer found and makes room for others; its data stays
    until it expires, and it comes back with its next line."""
    backfill_window: Annotated[float, DURATION, Ge(0)] = 3600.0
    """How old a sample with a timestamp of its own may be; older ones are refused (`stale_timestamp`)."""
    future_window: Annotated[float, DURATION, Ge(0)] = 60.0
    """How far ahead of our clock such a timestamp may be."""
    log_level: LogLevel = LogLevel.INFO
    """How much is logged: debug, info, warning or error."""
