"""Send the dashboard's events: one snapshot a second while a viewer is connected, the same for all viewers."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from aiohttp import web

from eventstream import encode, encode_retry

from ...http.problems import problem
from .services import Services

Look = Callable[[], Awaitable[dict[str, Any]]]
"""Returns a snapshot: the result of `gateway.dashboard.snapshot_total.total` with the gateway's `state`, `reason` and `workers`."""

EVENTS_PATH = "/dashboard/events"
_FIELDS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}

_WRITE_SECONDS = 20.0
"""A viewer that takes no bytes for 20 s is disconnected."""

_INTERVAL_SECONDS = 1.0
_SERIES_SECONDS = 180
_SERIES = ("at", "in", "out", "latency_p50", "latency_p99", "loop_lag")
_MOST_VIEWERS = 32
_RETURN_AFTER_MS = 2000


class Dashboard:
    """Take one snapshot a second for all viewers, and none without viewers.

    Each snapshot is complete, so a slow viewer misses snapshots and nothing is buffered for it. A new viewer first gets the series of the
    last three minutes, as far as snapshots were taken.
    """

    def __init__(self, look: Look, services: Services) -> None:
        self._look = look
        self._services = services
        self._series: deque[list[float | None]] = deque(maxlen=_SERIES_SECONDS)
        self._latest = b""
        self._news = asyncio.Event()
        self._viewers = 0
        self._making: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Dashboard viewers={self._viewers}>"

    async def close(self) -> None:
        """End the event streams of all viewers."""
        self._closed = True
        self._wake()
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait((self._making,))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send snapshots until the viewer disconnects."""
        if self._viewers >= _MOST_VIEWERS:
            return problem(503, f"the dashboard already has {self._viewers} viewers, its limit; close one")
        return await send_stream(request, self._events())

    async def _events(self) -> AsyncGenerator[bytes, None]:
        making = self._enter()
        try:
            yield encode_retry(_RETURN_AFTER_MS) + encode(json.dumps({"names": _SERIES, "points": [*self._series]}), type="series")
            if self._latest:
                yield self._latest
            while not self._closed and not making.done():
                await self._news.wait()
                yield self._latest
        finally:
            self._leave()

    def _enter(self) -> "asyncio.Task[None]":
        self._viewers += 1
        if self._making is None:
            self._making = asyncio.create_task(self._make())
            self._making.add_done_callback(_report)
        return self._making

    def _leave(self) -> None:
        self._viewers -= 1
        if not self._viewers and self._making is not None:
            self._making.cancel()
            self._making, self._latest = None, b""

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._services.watch())
                while True:
                    due = loop.time() + _INTERVAL_SECONDS
                    self._tell(await self._look())
                    await asyncio.sleep(due - loop.time())
        finally:
            self._wake()

    def _tell(self, snapshot: dict[str, Any]) -> None:
        snapshot["services"] = self._services.states
        self._series.append([_short(snapshot[name]) for name in _SERIES])
        self._latest = encode(json.dumps(snapshot, separators=(",", ":")), type="snapshot")
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


async def send_stream(request: web.Request, parts: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Send an event stream to a viewer until it ends or the viewer disconnects, and close `parts`."""
    response = web.StreamResponse(headers=_FIELDS)
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        async with contextlib.aclosing(parts):
            async for part in parts:
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write(part)
    return response


def add_events(app: web.Application, dashboard: Dashboard) -> None:
    """Add the dashboard's event stream to `app`, whose shutdown ends it."""

    async def close(_app: web.Application) -> None:
        await dashboard.close()

    app.router.add_get(EVENTS_PATH, dashboard.answer)
    app.on_shutdown.append(close)


def _short(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 6)


def _report(making: "asyncio.Task[None]") -> None:
    if not making.cancelled() and (error := making.exception()) is not None:
        making.get_loop().call_exception_handler({"message": "making a snapshot failed", "exception": error, "task": making})
