"""The life of the daemon: start, main loop, stop.

    start   embedded server, backlog, sockets, HTTP, and the tasks that write; ready when the store was
            reached once
    main    at each window's end: engine.flush -> store.write; meanwhile the sockets feed the engine
    stop    stop reading, drain what the kernel holds, flush the open window, wait for the store; what it
            does not confirm goes to the backlog's file

The daemon owns the only clock. Everything below is handed `now`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

import uvloop
from aiohttp import web

from collector import __version__
from collector.api import create_app
from collector.config import Settings, load_retention
from collector.embedded import EmbeddedServer
from collector.engine import ENGINES, WITHOUT_CORE, Engine, Interval
from collector.errors import OperatorError
from collector.listeners import Listener, ListenerSettings, create
from collector.logfmt import Every, event
from collector.store.address import without_password
from collector.store.backlog import Backlog
from collector.store.compaction import Compactor
from collector.store.keys import KeySpace
from collector.store.memory import MemoryGuard
from collector.store.reader import Reader
from collector.store.settings import EMBEDDED
from collector.store.topology import Topology, open_store
from collector.store.writer import Writer
from collector.telemetry import FlushStats

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_START_FAILED: Final = 75  # EX_TEMPFAIL: not a fault of the configuration, worth another try

CHUNK: Final = 200  # points encoded before the event loop gets its turn: 20 ms on a slow, busy core
_PURE_NOTE: Final = "no compiled core in this installation: the pure-Python engine runs"
_TICK: Final = 1.0  # seconds between two looks at what left the engine early
_LAG_TICK: Final = 0.02  # seconds; a longer hold of the event loop shows as lateness of this timer
_STOP_SECONDS: Final = 15.0  # for the last flush to be confirmed; systemd waits 90 s, Docker 10
_GC_THRESHOLDS: Final = (10_000, 1000, 1000)  # 10,000 young objects are looked at in a millisecond
_CANCEL_SECONDS: Final = 0.2  # then once more: a cancel that meets redis-py while it connects can be lost
_RESTART_PAUSE: Final = 1.0  # seconds before an embedded server that ended is started again
_DESCRIPTORS: Final = 65536
_REFUSED_LOG_SECONDS: Final = 60.0  # one line a reason and minute


def run(settings: Settings, *, require_native: bool = False) -> int:
    """Runs until SIGTERM or SIGINT; the exit code of the process."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    try:
        uvloop.run(Daemon(settings, require_native=require_native).run())
    except OperatorError as error:
        log.error(event("collector.failed", problem=error.problem, remedy=error.remedy))
        return EXIT_START_FAILED
    return EXIT_OK


def _raise_descriptor_limit() -> None:
    """As many descriptors as the system allows: the usual 1024 are fewer than connections may come."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tame_garbage_collection() -> None:
    """Keeps the search for cycles from holding the loop: it would walk over every series, again and again.

    What is old is set aside (`freeze`, here and after each flush) and freed by its reference counts as ever;
    cycles are sought among the young, where requests and their errors leave them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


class Daemon:
    """All parts of a running collector; what `telemetry` and the API look at."""

    def __init__(self, settings: Settings, *, require_native: bool = False) -> None:
        """OperatorError when `require_native` asks for an engine that was not built."""
        if require_native and "native" not in ENGINES:
            raise OperatorError(
                "this installation has no compiled core and --require-native asks for it",
                f"install a wheel that has one, or leave the option out ({WITHOUT_CORE})",
            )
        self.settings = settings
        self.started = self.clock()
        self.engine: Engine = next(iter(ENGINES.values()))(
            self.started,
            flush_interval=int(settings.flush_interval),
            idle_expiry=settings.idle_expiry,
            backfill_window=settings.backfill_window,
            future_window=settings.future_window,
            limits=settings.limits,
        )
        refresh = min(300.0, settings.idle_expiry / 10)
        self.retention = load_retention(settings, os.environ)
        self.keys = KeySpace(settings.redis.prefix, int(settings.flush_interval), self.retention.resolutions)
        self.writer = Writer(
            self.keys,
            max_bytes=settings.backlog.max_bytes,
            samples=settings.limits.samples,
            refresh=refresh,
            durability=settings.redis.durability,
            retention=self.retention,
        )
        self.backlog = Backlog(settings.backlog, settings.state_dir, self.writer.outbox, self.writer.sender)
        self.compactor: Compactor | None = None
        self.memory = MemoryGuard(self.writer)
        self._refresh = refresh
        self.flushes = FlushStats()
        self.listeners: list[Listener] = []
        self.embedded: EmbeddedServer | None = None
        self.store_url = ""
        self._stop = asyncio.Event()
        self._refused_logs: dict[str, Every] = {}
        self._refused_seen: dict[str, int] = {}

    # ------------------------------------------------------------------ start

    async def run(self) -> None:
        """Starts everything, waits for the signal, stops everything."""
        self._watch_signals()
        _raise_descriptor_limit()
        note = {} if "native" in ENGINES else {"note": _PURE_NOTE}
        log.info(event("collector.start", version=__version__, engine=self.engine.name, **note))
        async with contextlib.AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._store())
            await stack.enter_async_context(self.backlog.opened())
            self.compactor = Compactor(store, self.keys, self.retention, self.writer.outbox.lost)
            await stack.enter_async_context(
                self._tasks(
                    self.writer.sender.run(store),
                    self.backlog.run(),
                    self.compactor.run(self.clock),
                    self.memory.run(store, self.compactor),
                )
            )
            await stack.enter_async_context(self._sockets())
            await stack.enter_async_context(self._http(store))
            _tame_garbage_collection()
            await stack.enter_async_context(self._tasks(self._watch_lag()))
            await stack.enter_async_context(self._flushing())
            log.info(event("collector.ready"))
            await self._stop.wait()
            log.info(event("collector.stopping"))
        log.info(event("collector.stopped", points=self.writer.points))

    def clock(self) -> float:
        """Unix time in seconds; the only clock."""
        return time.time()

    @property
    def stopping(self) -> bool:
        """Whether a stop has begun."""
        return self._stop.is_set()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    @contextlib.asynccontextmanager
    async def _store(self) -> AsyncIterator[Topology]:
        """The servers of the store, and the embedded server if that is the store."""
        url = self.settings.redis.url
        async with contextlib.AsyncExitStack() as stack:
            if url == EMBEDDED:
                server = EmbeddedServer(self.settings.state_dir, self.settings.embedded)
                url = await server.start()
                stack.push_async_callback(server.stop)
                self.embedded = server
                await stack.enter_async_context(self._tasks(self._keep_embedded(server)))
            self.store_url = without_password(url)
            store = open_store(url, self.settings.redis)
            stack.push_async_callback(store.aclose)
            yield store

    async def _keep_embedded(self, server: EmbeddedServer) -> None:
        """Starts the embedded server again when it ends by itself; batches wait meanwhile."""
        while True:
            code = await server.wait()
            log.error(event("embedded.ended", code=code, remedy="see valkey.log in state_dir"))
            await asyncio.sleep(_RESTART_PAUSE)
            try:
                await server.start()
            except OperatorError as error:
                log.error(event("embedded.failed", problem=error.problem, remedy=error.remedy))

    @contextlib.asynccontextmanager
    async def _sockets(self) -> AsyncIterator[None]:
        """The listeners; on the way out, all that they have received goes to the store."""
        settings = self.settings
        try:
            for one in settings.listen:
                listener = create(self._tagged(one), self.engine, settings.limits, self.clock)
                await listener.open()
                self.listeners.append(listener)
            yield
        finally:
            for listener in self.listeners:
                await listener.drain()
                await listener.close()
            await self._flush_last()

    def _tagged(self, listener: ListenerSettings) -> ListenerSettings:
        """A listener whose tags say which collector took a line, where that is wanted.

        A head is given its listener's tags when it is read for the first time, so a line costs the same.
        """
        name = self.settings.node_tag
        if name is False:
            return listener
        node = socket.gethostname() if name is True else name
        return replace(listener, tags={"node": node, **listener.tags})

    @contextlib.asynccontextmanager
    async def _http(self, store: Topology) -> AsyncIterator[None]:
        settings = self.settings
        reader = Reader(
            store,
            self.keys,
            idle_expiry=settings.idle_expiry,
            refresh=self._refresh,
            retention=self.retention,
        )
        runner = web.AppRunner(create_app(self, reader, settings.http), access_log=None)
        await runner.setup()
        listen = settings.http.listen
        try:
            site = web.TCPSite(runner, listen.host, listen.port, shutdown_timeout=1.0)
            try:
                await site.start()
            except OSError as error:
                raise OperatorError(
                    f"http.listen: cannot listen on {listen}", f"{error.strerror or error}"
                ) from error
            for address in runner.addresses:
                log.info(event("http.listening", url=f"http://{address[0]}:{address[1]}"))
            yield
        finally:
            await runner.cleanup()

    @contextlib.asynccontextmanager
    async def _tasks(self, *coroutines: Any) -> AsyncIterator[None]:
        """Background tasks; one that fails stops the daemon, for none of them may end."""
        tasks = [asyncio.create_task(one) for one in coroutines]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            yield
        finally:
            while any(not task.done() for task in tasks):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical(event("collector.bug", task=task.get_name()), exc_info=task.exception())
            self._stop.set()

    # ------------------------------------------------------------------ main loop

    @contextlib.asynccontextmanager
    async def _flushing(self) -> AsyncIterator[None]:
        """The flush loop. It is never cancelled: a window that has begun to be written is finished."""
        task = asyncio.create_task(self._flush_until_stop())
        task.add_done_callback(self._ended)
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.gather(task, return_exceptions=True)

    async def _flush_until_stop(self) -> None:
        length = self.settings.flush_interval
        while not self._stop.is_set():
            until_edge = length - self.clock() % length
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(until_edge, _TICK)):
                    await self._stop.wait()
            intervals = self.engine.flush(self.clock())
            if intervals:
                await self._write(intervals)
                self._log_refused()

    async def _write(self, intervals: list[Interval]) -> None:
        """Hands retired windows to the store, and waits a while so that the duration can be told."""
        started = time.monotonic()
        points = self.writer.points
        for interval in intervals:
            for window, chunk in interval.chunks(CHUNK):
                self.writer.write(window, chunk, self.clock())
                await asyncio.sleep(0)
            self.writer.write_entries(interval.window, [*interval.events, *interval.checks])
        await self.writer.commit()
        await self.backlog.commit()
        await self._confirmed()
        self.flushes.add(
            seconds=time.monotonic() - started,
            points=self.writer.points - points,
            window_end=intervals[-1].window.end,
        )
        gc.freeze()

    async def _confirmed(self) -> None:
        """Waits half a flush interval for the store, and no longer than until a stop begins."""
        end = time.monotonic() + self.settings.flush_interval / 2
        while not self.stopping and (left := end - time.monotonic()) > 0:
            if await self.writer.sender.wait_idle(min(left, _TICK)):
                return

    async def _watch_lag(self) -> None:
        """Measures how long the event loop was held, by how late a timer comes."""
        while True:
            due = time.monotonic() + _LAG_TICK
            await asyncio.sleep(_LAG_TICK)
            self.flushes.lag(max(0.0, time.monotonic() - due))

    def _log_refused(self) -> None:
        """One line a reason and minute about refused lines, with the newest as an example."""
        for refused in reversed(self.engine.refused):
            total = self.engine.rejected[refused.reason]
            count = total - self._refused_seen.get(refused.reason, 0)
            if not count:
                continue
            every = self._refused_logs.setdefault(refused.reason, Every(_REFUSED_LOG_SECONDS))
            if every.admit(time.monotonic()) is None:
                continue
            self._refused_seen[refused.reason] = total
            log.warning(
                event(
                    "lines.refused",
                    reason=refused.reason,
                    count=count,
                    sender=refused.sender,
                    line=refused.line[:100],
                )
            )

    # ------------------------------------------------------------------ stop

    async def _flush_last(self) -> None:
        """Flushes the open window; what the store does not confirm in time is left to the backlog."""
        intervals = self.engine.close(self.clock())
        if intervals:
            await self._write(intervals)  # does not wait any more: a stop has begun
        await self.backlog.wait_confirmed(_STOP_SECONDS)
