"""The routes. Every answer under /api is JSON in Prometheus' envelope, errors too."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from collector import __version__, telemetry
from collector.api.guard import Handler, refusal
from collector.api.query import Reader, TooMuchError, answer
from collector.embedded import EmbeddedServer
from collector.errors import StoreError
from collector.http_settings import HttpSettings
from collector.logfmt import event
from collector.promql import QueryError, parse_selector

log = logging.getLogger(__name__)

_MOST_ENTRIES: Final = 1000
_MOST_FIELDS: Final = 100
_LARGEST_BODY: Final = 64 * 1024  # bytes; a query is a line or two
_JOINED: Final = 8  # pieces of an answer that are sent as one, with its length
_LATEST: Final = 253402300800  # the year 10000, where RFC 3339 ends

# errorType by status: Prometheus' words, and ours for what it does not answer in JSON (403 to 405).
ERRORS: Final = {
    400: "bad_data",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "bad_data",
    422: "execution",
    500: "internal",
    503: "unavailable",
}
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_UNIX_TIME: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]*)?")
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_COUNT: Final = re.compile(r"[0-9]{1,9}")


class Source(telemetry.Source, Protocol):
    """What the API shows: the daemon."""

    embedded: EmbeddedServer | None
    store_url: str

    def clock(self) -> float:
        """Unix time in seconds."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        ...


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether a line of aiohttp's log tells of more than a client that does not speak HTTP.

    aiohttp answers such a client with 400 and logs a traceback: any port scan would fill the log.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class BadRequest(ValueError):
    """A parameter that cannot be read."""


def create_app(source: Source, reader: Reader, settings: HttpSettings) -> web.Application:
    """The application; `reader` answers from the store."""
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    api = Api(source, reader)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = refusal(request, settings)
        response = _error(403, why) if why else await _answered(request, handler)
        response.headers.update(_HEADERS)
        return response

    app = web.Application(middlewares=[guarded], client_max_size=_LARGEST_BODY)
    app.router.add_get("/-/healthy", api.healthy)
    app.router.add_get("/-/ready", api.ready)
    app.router.add_get("/metrics", api.metrics)
    app.router.add_get("/api/v1/status", api.status)
    app.router.add_get("/api/v1/rejected", api.rejected)
    app.router.add_get("/api/v1/query", api.query)
    app.router.add_post("/api/v1/query", api.query)
    app.router.add_get("/api/v1/events", api.events)
    app.router.add_get("/api/v1/checks", api.checks)
    return app


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or its error as JSON; what we did wrong is logged, never shown."""
    try:
        return await handler(request)
    except QueryError as error:
        place = {"line": error.line, "column": error.column, "offset": error.offset}
        return _error(400, str(error), position=place)
    except BadRequest as error:
        return _error(400, str(error))
    except TooMuchError as error:
        return _error(422, str(error))
    except StoreError as error:
        return _error(503, f"the store is away: {error}")
    except web.HTTPException as error:
        return _refused(request, error)
    except Exception:
        log.exception(event("http.bug", method=request.method, path=request.path))
        return _error(500, "internal error: see the collector's log")


def _refused(request: web.Request, error: web.HTTPException) -> web.Response:
    """What the server itself refuses, in our envelope."""
    texts = {
        404: f"nothing is at {request.path}: docs/http.md lists what there is",
        405: f"{request.method} is not possible here, only {error.headers.get('Allow', '')}",
        413: f"the body is larger than {_LARGEST_BODY} bytes",
    }
    response = _error(error.status, texts.get(error.status, error.reason))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _data(data: Any) -> web.Response:
    return web.json_response({"status": "success", "data": data})


def _error(status: int, message: str, **more: Any) -> web.Response:
    kind = ERRORS.get(status, "internal" if status >= 500 else "bad_data")
    body = {"status": "error", "errorType": kind, "error": message, **more}
    return web.json_response(body, status=status)


class Api:
    """The handlers."""

    def __init__(self, source: Source, reader: Reader) -> None:
        self._source = source
        self._reader = reader

    async def healthy(self, request: web.Request) -> web.Response:
        """200 while the event loop turns, which this answer shows."""
        return web.Response(text="healthy\n")

    async def ready(self, request: web.Request) -> web.Response:
        """200 from the first time that the store was reached until a stop begins."""
        writer = self._source.writer
        if self._source.stopping:
            return web.Response(text="stopping\n", status=503)
        if not writer.sender.ever_up:
            why = " ".join(writer.sender.last_error.split()) or "not tried yet"
            return web.Response(text=f"the store was not reached yet: {why}\n", status=503)
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """Our own counters."""
        page = telemetry.render(self._source)
        return web.Response(body=page.encode(), headers={"Content-Type": telemetry.CONTENT_TYPE})

    async def status(self, request: web.Request) -> web.Response:
        """What runs, what it listens on, how it fares."""
        source, writer = self._source, self._source.writer
        store = {
            "url": source.store_url,
            "up": writer.sender.up,
            "last_error": writer.sender.last_error,
            "embedded_pid": source.embedded.pid if source.embedded else None,
            "pending_batches": writer.outbox.pending_batches,
            "pending_bytes": writer.outbox.pending_bytes,
            "lost": dict(writer.outbox.lost),
        }
        return _data(
            {
                "version": __version__,
                "engine": source.engine.name,
                "uptime_seconds": source.clock() - source.started,
                "listeners": [listener.status() for listener in source.listeners],
                "store": store,
                "series": source.engine.series,
                "flushes": asdict(source.flushes),
                "rejected": dict(source.engine.rejected),
                "odd": dict(source.engine.odd),
                "limit_hits": dict(source.engine.limit_hits),
            }
        )

    async def rejected(self, request: web.Request) -> web.Response:
        """The last refused lines, newest first."""
        return _data([asdict(line) for line in reversed(self._source.engine.refused)])

    async def query(self, request: web.Request) -> web.Response:
        """An instant query: `query`, and `time` (now when left out)."""
        given = await _parameters(request)
        text = given.get("query")
        if not text:
            raise BadRequest('parameter query is missing: a selector, like api.latency{route="/pay"}')
        now = self._source.clock()
        at = _time(given["time"]) if given.get("time") else now
        pieces = await answer(parse_selector(text), self._reader, at, now)
        pieces = [b'{"status":"success","data":', *pieces, b"}"]
        body = b"".join(pieces) if len(pieces) <= _JOINED else _sent(pieces)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def events(self, request: web.Request) -> web.Response:
        """DogStatsD events, newest first; at most `limit`."""
        return _data(await self._reader.events(await _limit(request)))

    async def checks(self, request: web.Request) -> web.Response:
        """Service checks, newest first; at most `limit`."""
        return _data(await self._reader.checks(await _limit(request)))


async def _sent(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _parameters(request: web.Request) -> dict[str, str]:
    """Parameters of the form in the body, then of the URL; the first of several of one name counts."""
    form = await request.read() if request.method == "POST" else b""
    given: dict[str, str] = {}
    for text in (form, request.rel_url.raw_query_string.encode()):
        try:
            pairs = parse_qsl(
                text.decode(), errors="strict", keep_blank_values=True, max_num_fields=_MOST_FIELDS
            )
        except ValueError as error:
            raise BadRequest(f"the parameters cannot be read: {error}") from None
        for name, value in pairs:
            given.setdefault(name, value)
    return given


async def _limit(request: web.Request) -> int:
    text = (await _parameters(request)).get("limit", "100")
    if not _COUNT.fullmatch(text) or not 1 <= int(text) <= _MOST_ENTRIES:
        raise BadRequest(f"parameter limit: {text[:40]!r} is no number from 1 to {_MOST_ENTRIES}")
    return int(text)


def _time(text: str) -> float:
    """Unix seconds, or RFC 3339."""
    seconds: float | None = None
    if _UNIX_TIME.fullmatch(text):
        seconds = float(text)
    elif _RFC_3339.fullmatch(text):
        try:
            seconds = datetime.fromisoformat(text).timestamp()
        except ValueError as error:
            raise BadRequest(f"parameter time: {text!r}: {error}") from None
    if seconds is None:
        raise BadRequest(
            f"parameter time: {text[:40]!r} is neither Unix time nor RFC 3339, like 2026-01-31T12:00:00Z"
        )
    if not 0 <= seconds < _LATEST:
        raise BadRequest(f"parameter time: {text!r} is out of range")
    return seconds
