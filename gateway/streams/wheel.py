"""A timer wheel: one timer for all streams."""

import asyncio
import math
from typing import Protocol

_ROUNDING = 1e-6  # of a tick: 0.9 s must be 900 ticks of 0.001 s, despite floating point


class Timed(Protocol):
    """An object that a wheel can call back."""

    slot: int

    def fire(self, now: int) -> int:
        """Handle the call at a due tick. Return the tick of the next call, or 0 for none."""


class TimerWheel:
    """Call many streams back at coarse times, with one event-loop timer for all of them and none while there are none.

    Streams read `now`, a count of ticks, instead of a clock. The wheel turns once in `stride` ticks, so calls are up to `stride` ticks
    early or late.
    """

    def __init__(self, tick_seconds: float, stride: int = 1) -> None:
        self.tick_seconds = tick_seconds
        self._stride = stride  # a power of two
        self.now = 1
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time() - tick_seconds
        self._slots: dict[int, set[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<TimerWheel now={self.now} waiting={sum(map(len, self._slots.values()))}>"

    def ticks(self, seconds: float) -> int:
        """Return the least number of ticks that lasts `seconds`, 0 for 0."""
        return math.ceil(seconds / self.tick_seconds - _ROUNDING)

    def turn_within(self, seconds: float) -> None:
        """Turn at least every `seconds` from now on, but not more than once a tick. Objects already in the wheel keep their ticks."""
        stride = self._stride
        while stride > 1 and stride * self.tick_seconds > seconds:
            stride //= 2  # halving keeps existing slots valid
        if stride == self._stride:
            return
        self._stride = stride
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._turn_later()

    def add(self, timed: Timed, due: int) -> None:
        """Call `timed.fire` at tick `due`."""
        if self._timer is None:
            self.now = self._elapsed()
            self._timer = self._turn_later()
        stride = self._stride
        timed.slot = -(-max(due, self.now + 1) // stride) * stride
        self._slots.setdefault(timed.slot, set()).add(timed)

    def remove(self, timed: Timed) -> None:
        """Remove `timed`, which need not be in the wheel."""
        slot = self._slots.get(timed.slot)
        if slot is not None:
            slot.discard(timed)
            if not slot:
                del self._slots[timed.slot]

    def _elapsed(self) -> int:
        return int((self._loop.time() - self._start) / self.tick_seconds)

    def _turn_later(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._stride * self.tick_seconds, self._turn)

    def _turn(self) -> None:
        before, self.now = self.now, self._elapsed()
        stride = self._stride
        for tick in range(before - before % stride + stride, self.now + 1, stride):
            slot = self._slots.get(tick)
            while slot:  # a call may remove others
                self._fire(slot.pop())
            self._slots.pop(tick, None)
        self._timer = self._turn_later() if self._slots else None

    def _fire(self, timed: Timed) -> None:
        timed.slot = 0
        try:
            due = timed.fire(self.now)
        except Exception as error:  # noqa: BLE001  # reported, and the others are still called
            self._loop.call_exception_handler({"message": f"{timed!r} failed at its tick", "exception": error})
            return
        if due:
            self.add(timed, due)
