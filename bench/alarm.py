"""Call functions at exact times. uvloop's timers have a resolution of milliseconds, and streams paced by them would send in bursts."""

import asyncio
import ctypes
import heapq
import os
import time
from collections.abc import Callable

_TFD_TIMER_ABSTIME = 1


class _Times(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class Alarm:
    """Calls many functions at times of CLOCK_MONOTONIC, by one timerfd(2), on the running loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._times = _Times()
        self._reference = ctypes.byref(self._times)
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        asyncio.get_running_loop().add_reader(self._fd, self._ring)

    def call_at(self, due_ns: int, function: Callable[[], None]) -> None:
        """Call `function` at `due_ns`, or as soon as possible when that has passed. It cannot be cancelled."""
        self._number += 1
        call = (due_ns, self._number, function)
        heapq.heappush(self._calls, call)
        if self._calls[0] is call:
            self._set(due_ns)

    def _set(self, due_ns: int) -> None:
        """Set the timer to `due_ns`, at once when that has passed, never for 0."""
        self._times.value_s, self._times.value_ns = divmod(due_ns, 1_000_000_000)
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._reference, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _ring(self) -> None:
        calls = self._calls
        now = time.monotonic_ns()
        while calls and calls[0][0] <= now:
            heapq.heappop(calls)[2]()
        self._set(calls[0][0] if calls else 0)  # 0 disarms the timer
