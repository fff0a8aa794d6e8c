"""Give free memory back to the system, which the allocator keeps for later."""

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable

_LEAST_LEFT = 500
_SECONDS = 1.0  # they leave within some seconds, and once is enough for most of them
_LOOK_SECONDS = 10.0  # looking takes some ten milliseconds where memory is in many pieces
_LOOKS_AFTER_TRIM = 3  # or it would trim all the time while clients come and go that take much
_MOST_FREE_BYTES = 16 * 1024 * 1024
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_C = ctypes.CDLL(None)


class _Figures(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and newer."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
    )
    hblkhd: int
    uordblks: int


def trim() -> None:
    """Give back what is free. Takes some ten milliseconds with thousands of streams open."""
    gc.collect()  # which empties the interpreter's own lists of free objects too
    trim_allocator()


def trim_allocator() -> None:
    """Give back what the allocator has free. Takes some milliseconds."""
    malloc_trim = getattr(_C, "malloc_trim", None)
    if malloc_trim is not None:  # glibc keeps what is free below its last block in use until it is told not to
        malloc_trim(0)


def unused_bytes() -> int:
    """Return how many bytes of memory the process has beyond those that the allocator has handed out. Its code is among them.

    0 on a system whose allocator does not say.
    """
    mallinfo = getattr(_C, "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = _Figures
    figures: _Figures = mallinfo()
    with open("/proc/self/statm", "rb") as statm:
        resident = int(statm.read().split()[1]) * _PAGE_BYTES
    return resident - figures.uordblks - figures.hblkhd


class Heap:
    """Trims when a crowd has left, and when much is unused.

    A crowd has left when at least half of the requests that were open have ended, 500 or more, and for a second none has. It looks 10 s
    after requests have come or gone, until none do, and trims when 16 MiB more are unused than at the least, once in 30 s at most. Then the
    allocator alone is trimmed: a collection would hold up every stream.
    """

    def __init__(
        self,
        trim: Callable[[], None] = trim,
        unused_bytes: Callable[[], int] = unused_bytes,
        trim_allocator: Callable[[], None] = trim_allocator,
    ) -> None:
        self._trim = trim
        self._trim_allocator = trim_allocator
        self._looks_to_pass = 0
        self._unused_bytes = unused_bytes
        self._least_unused = unused_bytes()
        self._open = 0
        self._most = 0  # that were open since it was trimmed
        self._still_open = 0  # when it began to wait
        self._timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None
        self._is_used = False  # since the timer began

    def __repr__(self) -> str:
        return f"<Heap open={self._open} most={self._most}>"

    def note_open(self, count: int) -> None:
        """Note how many requests are open now."""
        self._open = count
        self._is_used = True
        if self._look_timer is None:
            self._look_later()
        if count >= self._most:
            self._most = count
        elif self._timer is None and self._most - count >= _LEAST_LEFT and count <= self._most // 2:
            self._wait()

    def _wait(self) -> None:
        self._still_open = self._open
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._fire)

    def _fire(self) -> None:
        if self._open < self._still_open:  # a loop that is busy with them calls this before it has let go of what they leave behind
            self._wait()
            return
        self._timer = None
        self._most = self._open
        self._trim()

    def _look_later(self) -> None:
        self._is_used = False
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        passes = self._looks_to_pass > 0
        if passes:
            self._looks_to_pass -= 1
        else:
            self._trim_unused()
        if self._is_used or passes or self._looks_to_pass:
            self._look_later()
        else:
            self._look_timer = None

    def _trim_unused(self) -> None:
        unused = self._unused_bytes()
        if unused - self._least_unused > _MOST_FREE_BYTES:
            self._trim_allocator()
            self._looks_to_pass = _LOOKS_AFTER_TRIM
            self._least_unused = unused = self._unused_bytes()
        self._least_unused = min(self._least_unused, unused)
