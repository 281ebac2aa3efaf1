"""Who may ask: a page in the user's browser can reach loopback too.

A page of another site can send requests to 127.0.0.1, or make its own name mean 127.0.0.1 and then read the
answers (DNS rebinding). So the Host header must be a name that is ours, and a request that is not a plain
read must come from ourselves, or from no page at all.
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
_WILDCARDS: Final = ("0.0.0.0", "::")


def refusal(request: web.Request, settings: HttpSettings) -> str | None:
    """Why a request is not answered; None when it is."""
    host = _host(request.host)
    if not _is_ours(host, settings):
        return f"Host {host!r} is not ours: add it to http.allowed_hosts if it should be"
    origin = request.headers.get("Origin")
    if request.method not in ("GET", "HEAD") and origin and _host(urlsplit(origin).netloc) != host:
        return f"Origin {origin!r} is another site"
    if request.method == "POST" and request.content_type != FORM:
        return f"a POST here is a form: Content-Type {FORM}"
    return None


def _host(text: str) -> str:
    """The name in a Host header, without its port."""
    bare, _, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    name = bare if bare and port.isdecimal() else text
    return name.removeprefix("[").removesuffix("]").lower()


def _is_ours(host: str, settings: HttpSettings) -> bool:
    allowed = {"localhost", settings.listen.host.lower(), *map(str.lower, settings.allowed_hosts)}
    if host in allowed:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A page cannot make an address mean another: when all addresses are listened on, any is ours.
    return address.is_loopback or settings.listen.host in _WILDCARDS
