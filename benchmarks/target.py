"""Where the load goes: udp://host:port, tcp://host:port, unixgram:///path or unixstream:///path."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError

_KINDS: Final = {
    "udp": socket.SOCK_DGRAM,
    "tcp": socket.SOCK_STREAM,
    "unixgram": socket.SOCK_DGRAM,
    "unixstream": socket.SOCK_STREAM,
}
_PORT: Final = 8125
_REMEDY: Final = (
    'write it like "udp://127.0.0.1:8125", "tcp://localhost:8125" or "unixgram:///run/statsd.sock"'
)


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a server; `host` is numeric."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Reads a URL and looks its host up; BenchmarkError with a remedy."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise BenchmarkError(f'"{text}" is not an address: {error}', _REMEDY) from error
        if parts.scheme not in _KINDS:
            raise BenchmarkError(f'"{text}" is not an address', _REMEDY)
        if parts.scheme.startswith("unix"):
            if parts.netloc or not parts.path:
                raise BenchmarkError(f'"{text}" names no path', _REMEDY)
            return cls(parts.scheme, path=parts.path)
        if not parts.hostname or parts.path.strip("/") or parts.query or port == 0:
            raise BenchmarkError(f'"{text}" is not an address', _REMEDY)
        try:
            found = socket.getaddrinfo(parts.hostname, port or _PORT, type=_KINDS[parts.scheme])
        except OSError as error:
            raise BenchmarkError(f'"{parts.hostname}" is not known: {error.strerror}', _REMEDY) from error
        # Most servers listen on IPv4 only, so it is taken first where a name means both.
        _, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return cls(parts.scheme, str(address[0]), int(address[1]))

    @property
    def stream(self) -> bool:
        """Whether bytes flow, in place of datagrams."""
        return _KINDS[self.scheme] == socket.SOCK_STREAM

    @property
    def local(self) -> bool:
        """Whether nothing leaves this machine."""
        return bool(self.path) or ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    @property
    def where(self) -> tuple[str, str]:
        """(path, "0") or (host, port), as the native programs take it."""
        return (self.path, "0") if self.path else (self.host, str(self.port))

    def __str__(self) -> str:
        if self.path:
            return f"{self.scheme}://{self.path}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
