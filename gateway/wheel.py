"""One timer for all streams."""

import asyncio
from typing import Protocol


class Timed(Protocol):
    """What can stand in a wheel."""

    slot: int

    def ring(self, now: int) -> int:
        """Is called when its slot has come; gives the tick at which it wants to be called again, or 0 for never."""


class TimerWheel:
    """Calls many streams back at coarse times, with one event-loop timer for all of them and none while there are none.

    A stream reads `now`, a count of ticks, instead of a clock. Being early or late by up to one tick is part of the deal.
    """

    def __init__(self, tick_seconds: float) -> None:
        self.tick_seconds = tick_seconds
        self.now = 1
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time() - tick_seconds
        self._slots: dict[int, set[Timed]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<TimerWheel now={self.now} waiting={sum(map(len, self._slots.values()))}>"

    def ticks(self, seconds: float) -> int:
        """Gives the least number of ticks that lasts `seconds`, 0 for 0."""
        return -int(-seconds // self.tick_seconds)

    def add(self, timed: Timed, due: int) -> None:
        """Lets `timed.ring` be called at tick `due`."""
        if self._timer is None:
            self.now = self._elapsed()
            self._timer = self._loop.call_later(self.tick_seconds, self._turn)
        timed.slot = max(due, self.now + 1)
        self._slots.setdefault(timed.slot, set()).add(timed)

    def remove(self, timed: Timed) -> None:
        """Forgets `timed`, which need not be in the wheel."""
        slot = self._slots.get(timed.slot)
        if slot is not None:
            slot.discard(timed)
            if not slot:
                del self._slots[timed.slot]

    def _elapsed(self) -> int:
        return int((self._loop.time() - self._start) / self.tick_seconds)

    def _turn(self) -> None:
        before, self.now = self.now, self._elapsed()
        for tick in range(before + 1, self.now + 1):
            slot = self._slots.get(tick)
            while slot:  # a ring may remove others
                self._ring(slot.pop())
            self._slots.pop(tick, None)
        self._timer = self._loop.call_later(self.tick_seconds, self._turn) if self._slots else None

    def _ring(self, timed: Timed) -> None:
        timed.slot = 0
        try:
            due = timed.ring(self.now)
        except Exception as error:  # noqa: BLE001  # reported, and the others still ring
            self._loop.call_exception_handler({"message": f"{timed!r} failed to ring", "exception": error})
            return
        if due:
            self.add(timed, due)
