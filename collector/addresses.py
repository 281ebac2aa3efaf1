"""Addresses, networks and file modes as people write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

SCHEMES: Final = ("udp", "tcp", "unixgram", "unixstream")
_PORT: Final = 8125
_LONGEST_PATH: Final = 103  # bytes; what every system's sun_path holds with its end (Linux takes four more)
_EXAMPLE: Final = 'write it like "udp://localhost:8125" or "unixgram:///run/collector/statsd.sock"'


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: "127.example" may be anywhere
        return host == "localhost"


def host_port(host: str, port: int) -> str:
    """As people write them: "127.0.0.1:8125", "[::1]:8125"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def written_as(parse: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """How pydantic reads and shows a value that a file has as one text."""
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": parse},
        "serialization": {"type": "to-string"},
        "metadata": {"pydantic_js_functions": [lambda _schema, _handler: dict(schema)]},
    }


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: "udp://localhost:8125", "tcp://[::]:8125", "unixgram:///run/statsd.sock".

    Port 0 takes any free one. A unix socket has a path and neither host nor port.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: object) -> Address:
        """Reads a URL; ValueError with a remedy otherwise."""
        if isinstance(text, cls):
            return text
        if not isinstance(text, str) or not re.match(r"[a-z+]+://", text):
            raise ValueError(f"not an address: {_EXAMPLE}")
        try:
            parts = urlsplit(text)
            port = _PORT if parts.port is None else parts.port
        except ValueError as error:
            raise ValueError(f'"{text}" is not an address: {error}') from None
        if parts.scheme == "unix":
            raise ValueError(
                '"unix://" may mean either: write unixgram:// for datagrams, unixstream:// for streams'
            )
        if parts.scheme not in SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
            raise ValueError(f'"{parts.scheme}://" is not known: use one of {known}')
        if parts.scheme.startswith("unix"):
            return cls(parts.scheme, path=_socket_path(text, parts.netloc, parts.path))
        if not parts.hostname or parts.path or parts.query or parts.username:
            raise ValueError(f'"{text}" is not an address: {_EXAMPLE}')
        return cls(parts.scheme, parts.hostname, port)

    @property
    def unix(self) -> bool:
        """Whether it is a socket file."""
        return self.scheme.startswith("unix")

    @property
    def datagrams(self) -> bool:
        """Whether it takes datagrams; else streams."""
        return self.scheme in ("udp", "unixgram")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.unix or is_loopback(self.host)

    def __str__(self) -> str:
        if self.unix:
            path = self.path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
            return f"{self.scheme}://{path}"
        return f"{self.scheme}://{host_port(self.host, self.port)}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        pattern = f"^({'|'.join(SCHEMES)})://.+$"
        examples = ["udp://localhost:8125", "tcp://0.0.0.0:8125", "unixgram:///run/collector/statsd.sock"]
        return written_as(cls.parse, {"type": "string", "pattern": pattern, "examples": examples})


def _socket_path(text: str, host: str, path: str) -> str:
    """The path of a socket file, out of a URL; ValueError where it names none that can be bound."""
    path = unquote(path)
    if host or not path.startswith("/") or path.endswith("/"):
        raise ValueError(
            f'"{text}" is not a path in full: write it with three slashes, like unixgram:///run/statsd.sock'
        )
    if "\0" in path or "?" in text or "#" in text:
        raise ValueError(
            f'"{text}" is not a path that a socket can have: in a name write %3F for ?, %23 for #'
        )
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _LONGEST_PATH:
        raise ValueError(f"the path of a socket has at most {_LONGEST_PATH} bytes, this one {length}")
    return path


@dataclass(frozen=True, slots=True)
class Network:
    """A network, or one address: "10.0.0.0/8", "2001:db8::/32", "192.0.2.7"."""

    value: ipaddress.IPv4Network | ipaddress.IPv6Network

    @classmethod
    def parse(cls, text: object) -> Network:
        """Reads a network; ValueError with a remedy otherwise."""
        if isinstance(text, cls):
            return text
        try:
            # Of a number ip_network would make an address.
            meant = ipaddress.ip_network(text if isinstance(text, str) else "", strict=False)
        except ValueError:
            example = 'write it like "10.0.0.0/8" or "2001:db8::/32"'
            raise ValueError(f'"{text}" is not a network: {example}') from None
        try:
            return cls(ipaddress.ip_network(str(text)))
        except ValueError:
            raise ValueError(f'"{text}" has bits behind its mask: write {meant}') from None

    def __contains__(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return address in self.value

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        return written_as(cls.parse, {"type": "string", "examples": ["10.0.0.0/8", "2001:db8::/32"]})


@dataclass(frozen=True, slots=True)
class FileMode:
    """Permissions as chmod takes them: "0666", "660"."""

    value: int

    @classmethod
    def parse(cls, text: object) -> FileMode:
        """Reads octal digits; ValueError with a remedy otherwise. YAML's 0660 arrives as the number 660."""
        if isinstance(text, cls):
            return text
        digits = str(text) if isinstance(text, str | int) and not isinstance(text, bool) else ""
        if not re.fullmatch(r"0?[0-7]{1,3}", digits):
            raise ValueError(f'"{text}" is not a file mode: write it in octal digits, like "0660"')
        return cls(int(digits, 8))

    def __str__(self) -> str:
        return f"{self.value:04o}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> dict[str, Any]:
        written = {"type": "string", "pattern": "^0?[0-7]{1,3}$", "examples": ["0666", "0660"]}
        return written_as(cls.parse, {"anyOf": [written, {"type": "integer", "minimum": 0, "maximum": 777}]})
