"""Time that a test turns by hand, so that no result depends on how busy the machine is."""

import asyncio
import math

from tests.kit.waiting import settle

TICK_SECONDS = 1 / 64
"""The tick of a timer wheel that a clock turns: with a power of two the wheel counts exactly."""


class Clock:
    """The time of the running event loop: it stands still from now on, until the test calls `advance`.

    Guards such as `asyncio.timeout` stand still as well; the time limit of pytest stays.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = float(math.ceil(loop.time()))
        loop.time = lambda: self._now  # type: ignore[method-assign]

    @property
    def now(self) -> float:
        return self._now

    def busy(self, seconds: float) -> None:
        """Let `seconds` pass while a callback holds the event loop up."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and return when the event loop has done what is due then."""
        self.busy(seconds)
        await settle()

    async def turn(self, ticks: int = 1) -> None:
        """Let ticks of a timer wheel pass one by one."""
        for _ in range(ticks):
            await self.advance(TICK_SECONDS)
