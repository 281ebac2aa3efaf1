"""Who may ask: a page in the user's browser can reach loopback too.

A page of another site can send requests to 127.0.0.1, or make its own name mean 127.0.0.1 and then read
the answers (DNS rebinding). So the Host header must be a name that is ours, and a request that is not a
plain read must come from one of our own pages, or from no page at all, and carry the one content type
that the API reads.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from collector.http_settings import HttpSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM: Final = "application/x-www-form-urlencoded"
_READS: Final = ("GET", "HEAD", "OPTIONS")
_WILDCARDS: Final = ("0.0.0.0", "::")


def refusal(request: web.Request, settings: HttpSettings) -> str | None:
    """Why a request is not answered; None when it is."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1:
        return "a request needs one Host header"
    host = _name(hosts[0])
    if not _is_ours(host, settings):
        return f"Host {host!r} is not ours: add it to http.allowed_hosts if it should be"
    if request.method in _READS:
        return None
    origin = request.headers.get("Origin")
    if origin is not None and not _same_site(origin, hosts[0], settings):
        return f"Origin {origin!r} is another site: add its host to http.allowed_hosts if it should not be"
    if request.method == "POST" and request.content_type != FORM:
        return f"a POST here is a form: send Content-Type: {FORM}"
    return None


def _name(text: str) -> str:
    """The name or address in a Host header, without its port."""
    bare, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    name = bare if bare and port.isdecimal() else text
    return name.removeprefix("[").removesuffix("]").lower()


def _is_ours(host: str, settings: HttpSettings) -> bool:
    if host in {"localhost", settings.listen.host.lower()} or _is_allowed(host, settings):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A page cannot make an address mean another: when all addresses are listened on, any is ours.
    return address.is_loopback or settings.listen.host in _WILDCARDS


def _is_allowed(host: str, settings: HttpSettings) -> bool:
    return host in {allowed.lower() for allowed in settings.allowed_hosts}


def _same_site(origin: str, host: str, settings: HttpSettings) -> bool:
    """Whether a page of this origin is ours: the same host and port, or a host that is allowed."""
    try:
        parts = urlsplit(origin)
        return parts.netloc.lower() == host.lower() or _is_allowed(parts.hostname or "", settings)
    except ValueError:
        return False
