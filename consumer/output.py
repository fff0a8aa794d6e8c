"""Standard output, whose reader may be slow, stuck or gone, and must not block the consumer for ever."""

import asyncio
import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Sequence

import structlog

_log = structlog.get_logger()

_PIECE_BYTES = 64 * 1024
_MAX_BUFFERED_BYTES = 1024 * 1024
STALL_SECONDS = 5.0
"""The time without progress after which a reader is not waited for any more."""


class Output:
    """A file descriptor and a bounded buffer, from which a thread of its own writes whole lines in order.

    A slow reader slows `put`. After `STALL_SECONDS` without progress, `put` stops waiting: lines that do not fit are left out and
    counted, until the reader reads again. When the reader is gone, all lines are left out.
    """

    def __init__(self, descriptor: int) -> None:
        self.left_out = 0
        """Lines that were not written."""
        self.gone = False
        """Whether the reader closed its end."""
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._buffered = 0
        self._moved_at = time.monotonic()  # when the reader last made progress, or the buffer was last empty
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._closing = False
        self._reported = 0  # of those left out
        self._left_out_at = 0.0
        self._thread = threading.Thread(target=self._run, name="stdout", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Output buffered={self._buffered} left_out={self.left_out} gone={self.gone}>"

    def write(self, text: str) -> int:
        """Buffer a line without waiting, for loggers that write to a text file."""
        self._offer(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    async def put(self, lines: Sequence[bytes]) -> None:
        """Buffer lines, and wait for a reader that is slow but reads."""
        if self.gone:
            self.left_out += len(lines)
            return
        whole = b"".join(lines)
        if self._buffered + len(whole) <= _MAX_BUFFERED_BYTES:
            self._offer(whole)
        else:
            for line in lines:
                await self._wait_for_room(line)
                self._offer(line)
        if self.left_out > self._reported and self._moved_at > self._left_out_at:
            left_out, self._reported = self.left_out - self._reported, self.left_out
            _log.warning("standard output was not read: lines were left out of it, but the log has the events", lines=left_out)

    async def _wait_for_room(self, line: bytes) -> None:
        loop = asyncio.get_running_loop()
        while not self._fits(line) and (patience := self._patience()) > 0:
            room = asyncio.Event()
            self._waiter = (loop, room)
            if not self._fits(line):  # or the thread may have made room before it could see the waiter
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(room.wait(), patience)

    def close(self) -> None:
        """Write the buffered lines, for at most `STALL_SECONDS`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(STALL_SECONDS)

    def _fits(self, line: bytes) -> bool:
        return self.gone or not self._buffered or self._buffered + len(line) <= _MAX_BUFFERED_BYTES

    def _patience(self) -> float:
        return self._moved_at + STALL_SECONDS - time.monotonic()

    def _offer(self, line: bytes) -> None:
        with self._changed:
            if self.gone or not self._fits(line):
                self.left_out += 1
                self._left_out_at = time.monotonic()
                return
            if not self._buffered:
                self._moved_at = time.monotonic()
            self._lines.append(line)
            self._buffered += len(line)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (lines := self._next_lines()) is not None:
                rest = memoryview(lines)
                while rest:
                    taken = self._write_some(rest[:_PIECE_BYTES])
                    rest = rest[taken:]
                    self._note_moved(taken)
        except OSError as error:
            with self._changed:
                self.gone = True
                self.left_out += len(self._lines)
                self._lines.clear()
            self._note_moved(0)
            with contextlib.suppress(OSError):  # standard error may be the same pipe
                os.write(2, f"consumer: standard output is gone ({error}); events are in the log directory only\n".encode())

    def _next_lines(self) -> bytes | None:
        with self._changed:
            while not self._lines:
                if self._closing:
                    return None
                self._changed.wait()
            lines = b"".join(self._lines)
            self._lines.clear()
            return lines

    def _write_some(self, piece: memoryview) -> int:
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # the descriptor is non-blocking because the parent process shares it
            select.select([], [self._descriptor], [])
            return 0

    def _note_moved(self, taken: int) -> None:
        with self._changed:
            self._buffered -= taken
            if taken:
                self._moved_at = time.monotonic()
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            loop, room = waiter
            if not loop.is_closed():
                loop.call_soon_threadsafe(room.set)
