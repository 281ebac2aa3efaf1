"""The routes. Every answer under /api is JSON in Prometheus' envelope, errors too."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, Protocol

from aiohttp import web

from collector import __version__, telemetry
from collector.api.guard import Handler, refusal
from collector.api.query import Reader, answer
from collector.embedded import EmbeddedServer
from collector.errors import StoreError
from collector.http_settings import HttpSettings
from collector.logfmt import event
from collector.promql import QueryError, parse_selector

log = logging.getLogger(__name__)

_MOST_ENTRIES: Final = 1000
_ERRORS: Final = {400: "bad_data", 403: "forbidden", 404: "not_found", 405: "not_allowed", 503: "unavailable"}


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


class BadRequest(ValueError):
    """A parameter that cannot be read."""


def create_app(source: Source, reader: Reader, settings: HttpSettings) -> web.Application:
    """The application; `reader` answers from the store."""
    api = Api(source, reader)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = refusal(request, settings)
        return _error(403, why) if why else await _answered(request, handler)

    app = web.Application(middlewares=[guarded])
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
    except (QueryError, BadRequest) as error:
        return _error(400, str(error))
    except StoreError as error:
        return _error(503, f"the store is away: {error}")
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except Exception:
        log.exception(event("http.bug", method=request.method, path=request.path))
        return _error(500, "internal error: see the collector's log")


def _data(data: Any) -> web.Response:
    return web.json_response({"status": "success", "data": data})


def _error(status: int, message: str) -> web.Response:
    body = {"status": "error", "errorType": _ERRORS.get(status, "internal"), "error": message}
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
        if not writer.ever_up:
            why = writer.last_error or "not tried yet"
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
            "up": writer.up,
            "last_error": writer.last_error,
            "embedded_pid": source.embedded.pid if source.embedded else None,
            "pending_batches": writer.pending_batches,
            "pending_bytes": writer.pending_bytes,
            "lost": dict(writer.lost),
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
        given = request.query if request.method == "GET" else await request.post()
        text = given.get("query")
        if not isinstance(text, str) or not text:
            raise BadRequest('parameter query is missing: a selector, like api.latency{route="/pay"}')
        at = given.get("time")
        now = self._source.clock() if at is None else _time(str(at))
        return _data(await answer(parse_selector(text), self._reader, now))

    async def events(self, request: web.Request) -> web.Response:
        """DogStatsD events, newest first; at most `limit`."""
        return _data(await self._reader.events(_limit(request)))

    async def checks(self, request: web.Request) -> web.Response:
        """Service checks, newest first; at most `limit`."""
        return _data(await self._reader.checks(_limit(request)))


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "100")
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_ENTRIES:
        raise BadRequest(f"parameter limit: {text!r} is no number from 1 to {_MOST_ENTRIES}")
    return int(text)


def _time(text: str) -> float:
    """Unix seconds, or RFC 3339."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise BadRequest(f"parameter time: {text!r} is neither Unix time nor RFC 3339") from None
    if not 0 <= seconds < 1e11:
        raise BadRequest(f"parameter time: {text!r} is out of range")
    return seconds
