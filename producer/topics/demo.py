"""Publish demo events each second: `demo.host`, the load of the machine, and `demo.clock`, the time."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import psutil
import structlog

from eventstream import encode

from ..log.event_log import EventLog, LogError
from ..web.drain import Drain

UNREADABLE = (OSError, psutil.Error, RuntimeError, ValueError, LookupError)
"""The exceptions of reading where /proc is hidden or differs from Linux, because psutil parses it by hand."""

_LOOPBACK = "lo"


class HostReader:
    """Read the load since the previous reading. All readings belong in one thread."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._received = self._sent = 0

    def __repr__(self) -> str:
        return f"<HostReader {'new' if self._at is None else 'reading'}>"

    def read(self) -> dict[str, Any] | None:
        """Return an object for JSON; None the first time, without a previous reading. Raises one of UNREADABLE."""
        cpu, memory = psutil.cpu_percent(), psutil.virtual_memory()
        interfaces = [counters for name, counters in psutil.net_io_counters(pernic=True).items() if name != _LOOPBACK]
        received, sent = sum(counters.bytes_recv for counters in interfaces), sum(counters.bytes_sent for counters in interfaces)
        at = time.monotonic()
        reading = None
        if self._at is not None:
            seconds = max(at - self._at, 0.001)
            reading = {
                "cpu_percent": cpu,
                "memory_percent": memory.percent,
                "memory_total_bytes": memory.total,
                "network_received_bytes_per_second": max(round((received - self._received) / seconds), 0),  # an interface may disappear
                "network_sent_bytes_per_second": max(round((sent - self._sent) / seconds), 0),
            }
        self._at, self._received, self._sent = at, received, sent
        return reading


HOST_TOPIC = "demo.host"
CLOCK_TOPIC = "demo.clock"

_log = structlog.get_logger()


async def publish_demo(
    log: EventLog, drain: Drain, *, period_seconds: float = 1.0, read_host: Callable[[], dict[str, Any] | None] | None = None
) -> None:
    """Append an event to each demo topic at every multiple of `period_seconds` until the drain begins.

    While the log accepts no events, because it is full for example, each event is attempted: one line logs the first failure, and one
    the recovery. The same applies to a machine that cannot be read; then only the clock is published.
    """
    loop = asyncio.get_running_loop()
    read_host = read_host or HostReader().read
    storing, reading = _Attempts("demo events are not stored"), _Attempts("the machine cannot be read for the demo")
    tick = 0
    with ThreadPoolExecutor(1, "demo-host") as thread:  # on a large machine reading takes milliseconds
        while True:
            tick = _next_tick(tick, time.time() / period_seconds)
            if await drain.wait(tick * period_seconds - time.time()):
                return
            events = [(CLOCK_TOPIC, _write_time(tick * period_seconds))]
            try:
                host = await loop.run_in_executor(thread, read_host)
                reading.succeeded()
            except UNREADABLE as error:
                host = None
                reading.failed(error)
            if host is not None:
                events.append((HOST_TOPIC, json.dumps(host, separators=(",", ":"))))
            try:
                for topic, data in events:
                    await log.append(topic, [encode(data)])
                storing.succeeded()
            except LogError as error:
                storing.failed(error)


def _next_tick(last: int, now: float) -> int:
    """Return the number of the next tick: never `last` again when a timer woke too early, but the current one when the clock was set."""
    tick = int(now) + 1
    return tick + 1 if tick == last else tick


def _write_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class _Attempts:
    """Log the first failure and the recovery, and nothing in between."""

    def __init__(self, failure: str) -> None:
        self._failure = failure
        self._failed = 0

    def failed(self, error: Exception) -> None:
        if not self._failed:
            _log.warning(self._failure, reason=f"{type(error).__name__}: {error}")
        self._failed += 1

    def succeeded(self) -> None:
        if self._failed:
            _log.info(f"{self._failure}: over", attempts=self._failed)
            self._failed = 0
