"""What the HTTP server is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collector.units import is_loopback


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
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        return {
            "type": "function-plain",
            "function": {"type": "no-info", "function": cls.parse},
            "serialization": {"type": "to-string"},
            "metadata": {"pydantic_js_functions": [_host_port_schema]},
        }


def _host_port_schema(schema: object, handler: object) -> dict[str, Any]:
    return {"type": "string", "pattern": r"^.+:[0-9]+$", "examples": ["127.0.0.1:8127", "[::1]:8127"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """The HTTP API, for the command line, Prometheus, Grafana and people."""

    __pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}  # noqa: RUF012

    listen: HostPort = HostPort("127.0.0.1", 8127)
    """Where it listens. It knows no passwords: beyond loopback, let a proxy ask for them."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a request's Host header may carry besides loopback names and the address listened on. A
    page in a browser can reach loopback under a name of its own choice; this is what stops it."""
