"""Write lines to the log and, once they are durable, to standard output."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import structlog

from .log import EventLog
from .output import Output

_log = structlog.get_logger()

FIRST_RETRY_SECONDS = 1.0
"""The delay after a first failure; it doubles with each further one."""
LONGEST_RETRY_SECONDS = 30.0
_MOST_PENDING_BYTES = 8 * 1024 * 1024


class Writer:
    """Write the lines that came during the last write as one group with one sync, in a thread, so that the event loop keeps running.

    While a write fails, `put` waits, and the lines are kept and retried with back-off. Call `close` once only, while `run` is
    running.
    """

    def __init__(self, log: EventLog, output: Output | None, sync_seconds: float = 0.0) -> None:
        self.failure: str | None = None
        """Why the log cannot be written now."""
        self.durable = 0
        """The number of lines that became durable since the start."""
        self.pending_bytes = 0
        """Bytes of lines that are not durable yet."""
        self.upkeep_due = asyncio.Event()
        """Set when a segment was closed, or when space is needed."""
        self.on_write: Callable[[float], object] | None = None
        """A function called with the seconds that each group took until it was durable."""
        self._log = log
        self._output = output
        self._sync_seconds = sync_seconds
        self._lines: list[bytes] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "log")

    def __repr__(self) -> str:
        return f"<Writer pending={self.pending_bytes} durable={self.durable} failure={self.failure!r}>"

    async def put(self, lines: Sequence[bytes]) -> None:
        """Buffer lines, in order; wait first while too much is pending or the log cannot be written."""
        await self._room.wait()
        self._lines.extend(lines)
        self.pending_bytes += sum(map(len, lines))
        self._update_room()
        self._wake.set()

    async def run(self) -> None:
        """Write until `close`, then sync and return."""
        while not self._closing.is_set() or self._lines or self.pending_bytes:
            await self._wait_for_work()
            lines, self._lines = self._lines, []
            self._wake.clear()
            if not await self._write(lines):
                break
        self._thread.shutdown(wait=False)

    def close(self) -> None:
        """Make `run` return as soon as everything is durable, or at the next failure."""
        self._closing.set()
        self._wake.set()

    async def _wait_for_work(self) -> None:
        interval = self._sync_seconds if self.pending_bytes and not self._lines else None
        with contextlib.suppress(TimeoutError):  # a timeout: the written lines are due for their sync
            await asyncio.wait_for(self._wake.wait(), interval)

    async def _write(self, lines: list[bytes]) -> bool:
        """Write the lines, retrying until it succeeds. Return False if closing ends the retries."""
        loop = asyncio.get_running_loop()
        delay = FIRST_RETRY_SECONDS
        while True:
            rotations = self._log.rotations
            began = perf_counter()
            try:
                durable = await loop.run_in_executor(self._thread, self._flush, lines)
            except OSError as error:
                lines = []  # the log has them
                self._fail(error)
                if await self._closes_within(delay):
                    return False
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
                continue
            if self.on_write is not None and durable:
                self.on_write(perf_counter() - began)
            if self._log.rotations != rotations:
                self.upkeep_due.set()
            await self._acknowledge(durable)
            return True

    def _flush(self, lines: list[bytes]) -> list[bytes]:
        self._log.append(lines)
        return self._log.flush(sync=self._closing.is_set())

    async def _acknowledge(self, durable: list[bytes]) -> None:
        if self.failure is not None:
            self.failure = None
            _log.info("the log can be written again")
        self.durable += len(durable)
        self.pending_bytes -= sum(map(len, durable))
        self._update_room()
        if self._output is not None and durable:
            await self._output.put(durable)

    def _fail(self, error: OSError) -> None:
        reason = f"{error.strerror or error} ({self._log.directory})"
        if self.failure is None:
            _log.error("the log cannot be written; reading pauses until it can", reason=reason)
        self.failure = reason
        self._update_room()
        self.upkeep_due.set()  # closed segments may be compressed or removed, which frees space on a full disk

    def _update_room(self) -> None:
        if self.failure is None and self.pending_bytes < _MOST_PENDING_BYTES:
            self._room.set()
        else:
            self._room.clear()

    async def _closes_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return False
        return True
