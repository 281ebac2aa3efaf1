"""Where the store is, as people write it.

    redis://user:password@host:6379/0               one server
    unix://user:password@/path/to.sock?db=0         one server, over its socket
    redis+sentinel://user:password@host:26379,host:26379/service/0
                                                    the primary that these Sentinels name; user and password
                                                    are those of the servers
    redis+cluster://user:password@host:6379,host:6379
                                                    a cluster; any of its nodes will do, the others are found

rediss:// and its kin are the same over TLS. An error never quotes the address: a password may be in any part
of one that cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from collector.addresses import host_port
from collector.errors import OperatorError


class Layout(StrEnum):
    """What stands behind an address."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES: Final = {
    "redis": (Layout.SINGLE, False),
    "rediss": (Layout.SINGLE, True),
    "unix": (Layout.SINGLE, False),
    "redis+cluster": (Layout.CLUSTER, False),
    "rediss+cluster": (Layout.CLUSTER, True),
    "redis+sentinel": (Layout.SENTINEL, False),
    "rediss+sentinel": (Layout.SENTINEL, True),
}
_KNOWN: Final = "use embedded, redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"
_PORTS: Final = {Layout.SINGLE: 6379, Layout.CLUSTER: 6379, Layout.SENTINEL: 26379}
_WRITTEN: Final = {  # behind the scheme
    Layout.SINGLE: "host:6379/0",
    Layout.CLUSTER: "host:6379,host:6379",
    Layout.SENTINEL: "host:26379,host:26379/service/0",
}
_ESCAPES: Final = "in a user or password write %40 for @, %2F for /, %3A for :, %23 for #, %3F for ?"
_URL: Final = re.compile(
    r"(?P<scheme>[a-z+]+)://(?P<netloc>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_USER_INFO: Final = re.compile(r"(?P<start>[a-z+]+://[^/?#:]*):[^/?#]*@")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """An address that was read. A socket has a `path` and no hosts."""

    layout: Layout
    tls: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    service: str = ""  # the name that Sentinel knows the primary by
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> StoreAddress:
        """Reads an address; OperatorError, which says what is wrong and how to write it, otherwise."""
        found = _URL.fullmatch(url)
        if found is None or found["scheme"] not in _SCHEMES:
            raise OperatorError("redis.url is not an address", _KNOWN)
        layout, tls = _SCHEMES[found["scheme"]]
        user, password, hosts = _user_info(found["netloc"])
        query = found["query"] or ""
        if found["scheme"] == "unix":
            if hosts or not found["path"] or found["fragment"]:
                raise OperatorError("redis.url names no socket", "write it like unix:///path/to.sock")
            path, database = unquote(found["path"]), _options(found["scheme"], query)
            return cls(layout, path=path, database=database, user=user, password=password)
        if found["fragment"] or "@" in found["path"] + query:
            raise OperatorError("redis.url has an @ or # in an odd place", _ESCAPES)
        example = f"write it like {found['scheme']}://{_WRITTEN[layout]}"
        if not hosts:
            raise OperatorError("redis.url names no host", example)
        return cls(
            layout,
            tls=tls,
            hosts=tuple(_host(one, _PORTS[layout], example) for one in _hosts(hosts, layout, example)),
            database=_options(found["scheme"], query),
            user=user,
            password=password,
        )._with_path(found["path"], example)

    def _with_path(self, path: str, example: str) -> StoreAddress:
        """The address with what stands behind its hosts: /database, or /service/database."""
        service, database = "", path.strip("/")
        if self.layout is Layout.SENTINEL:
            service, _, database = database.partition("/")
            if not service:
                raise OperatorError("redis.url names no service that Sentinel knows", example)
        if database and not re.fullmatch(r"[0-9]{1,9}", database):
            raise OperatorError("redis.url has a database that is no number", example)
        number = int(database) if database else self.database
        if number and self.layout is Layout.CLUSTER:
            raise OperatorError("redis.url has a database, and a cluster has none but 0", example)
        return StoreAddress(
            self.layout, self.tls, self.hosts, "", number, unquote(service), self.user, self.password
        )

    def __str__(self) -> str:
        """Where it is, without who asks."""
        if self.path:
            return f"unix://{self.path}"
        return ",".join(host_port(host, port) for host, port in self.hosts)


def _user_info(netloc: str) -> tuple[str, str, str]:
    """User, password, and the rest."""
    info, _, hosts = netloc.rpartition("@")
    user, _, password = info.partition(":")
    return unquote(user), unquote(password), hosts


def _hosts(text: str, layout: Layout, example: str) -> list[str]:
    hosts = text.split(",")
    if layout is Layout.SINGLE and len(hosts) > 1:
        raise OperatorError(
            "redis.url names several hosts",
            "say what they are: redis+cluster://host,host or redis+sentinel://host,host/service",
        )
    if not all(hosts):
        raise OperatorError("redis.url names no host between two commas", example)
    return hosts


def _host(text: str, port: int, example: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        found, given = parts.hostname, parts.port
    except ValueError:
        raise OperatorError("redis.url has a host or port that cannot be read", _ESCAPES) from None
    if not found:
        raise OperatorError("redis.url names no host", example)
    return found, port if given is None else given


# Where redis-py takes these behind the ?, they are settings here: a fault in them is told with its line.
_MOVED: Final = {
    "ssl_ca_certs": "redis.tls.ca",
    "ssl_certfile": "redis.tls.certificate",
    "ssl_keyfile": "redis.tls.key",
    "ssl_check_hostname": "redis.tls.check_hostname",
    "username": "redis.user",
}


def _options(scheme: str, query: str) -> int:
    """The database of `?db=`, the only thing that may stand there."""
    if "password" in re.findall(r"(\w+)=", query):
        raise OperatorError(
            "redis.url has a password behind the ?", f"write it as {scheme}://user:password@..."
        )
    database = 0
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _MOVED:
            raise OperatorError(f"redis.url has {name} behind the ?", f"set {_MOVED[name]} instead")
        if name != "db":
            raise OperatorError("redis.url has more than ?db= behind the ?", "nothing else is known there")
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise OperatorError("redis.url has a database that is no number", "write it like ?db=0")
        database = int(value)
    return database


def without_password(url: str) -> str:
    """An address that may be shown."""
    return _USER_INFO.sub(r"\g<start>:***@", url, count=1)
