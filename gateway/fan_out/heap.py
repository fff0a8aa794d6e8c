"""Gives memory back to the system after a crowd has left."""

import asyncio
import ctypes
import gc
from collections.abc import Callable

_LEAST_LEFT = 500
_SECONDS = 1.0  # they leave within some seconds, and once is enough for most of them


def trim() -> None:
    """Gives back what is free. Takes some ten milliseconds with thousands of streams open."""
    gc.collect()  # which empties the interpreter's own lists of free objects too
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:  # glibc keeps what is free below its last block in use until it is told not to
        malloc_trim(0)


class Heap:
    """Trims when at least half of the requests that were open have ended, `least_left` or more, and for a second none has.

    They may be bytes as well, or whatever else comes and goes.
    """

    def __init__(self, trim: Callable[[], None] = trim, least_left: int = _LEAST_LEFT) -> None:
        self._trim = trim
        self._least_left = least_left
        self._open = 0
        self._most = 0  # that were open since it was trimmed
        self._still_open = 0  # when it began to wait
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Heap open={self._open} most={self._most}>"

    def note_open(self, count: int) -> None:
        """Takes note of how many are open now."""
        self._open = count
        if count >= self._most:
            self._most = count
        elif self._timer is None and self._most - count >= self._least_left and count <= self._most // 2:
            self._wait()

    def _wait(self) -> None:
        self._still_open = self._open
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._ring)

    def _ring(self) -> None:
        if self._open < self._still_open:  # a loop that is busy with them calls this before it has let go of what they leave behind
            self._wait()
            return
        self._timer = None
        self._most = self._open
        self._trim()
