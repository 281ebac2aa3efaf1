"""What the HTTP server is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collector.addresses import host_port, is_loopback, written_as


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a server listens: "127.0.0.1:8127", "[::1]:8127". Port 0 takes any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> HostPort:
        """Reads "host:port"; ValueError with a remedy otherwise."""
        if isinstance(text, cls):
            return text
        host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
        bare = host.removeprefix("[").removesuffix("]")
        if (
            not colon
            or not bare
            or not port.isdecimal()
            or int(port) > 65535
            or (":" in bare) != ("[" in host)
        ):
            raise ValueError(f'"{text}" is not an address: write it like "127.0.0.1:8127" or "[::1]:8127"')
        return cls(bare, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return host_port(self.host, self.port)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        examples = ["127.0.0.1:8127", "[::1]:8127"]
        return written_as(cls.parse, {"type": "string", "pattern": r"^.+:[0-9]+$", "examples": examples})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """The HTTP API, for the command line, Prometheus, Grafana and people."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    listen: HostPort = HostPort("127.0.0.1", 8127)
    """Where it listens. It knows no passwords: beyond loopback, let a proxy ask for them."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a request's Host header may carry besides loopback names and the address listened on. A
    page in a browser can reach loopback under a name of its own choice; this is what stops it."""
