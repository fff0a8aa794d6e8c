"""Time that a test turns by hand, so that no result depends on how busy the machine is."""

import asyncio

from tests.kit.waiting import settle


class Clock:
    """The time of the running event loop: it stands still from now on, until the test calls `advance`.

    Guards such as `asyncio.timeout` stand still as well; the time limit of pytest stays.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        loop.time = lambda: self._now  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and return when the event loop has done what is due then."""
        self._now += seconds
        await settle()
