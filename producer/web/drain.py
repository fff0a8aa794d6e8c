"""The drain before the process stops: begun once, seen by every open stream."""

import asyncio
import random
from collections.abc import Callable
from http import HTTPStatus

from eventstream import encode_retry

from .problems import Problem


class Drain:
    """The drain: it begins when the process gets a signal to stop. From then on streams end and none is opened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Drain begun={self.begun}>"

    @property
    def begun(self) -> bool:
        return self._event.is_set()

    def begin(self) -> None:
        """Begin the drain and notify all waiters. Call it in the event loop; a second call changes nothing."""
        if not self.begun:
            self._event.set()
            for begin in self._watchers:
                begin()

    def refuse(self) -> None:
        """Raise Problem (503) if the drain has begun."""
        if self.begun:
            detail = "the producer is stopping; retry in a few seconds"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})

    def watch(self, begin: Callable[[], None]) -> None:
        """Call `begin` when the drain begins."""
        self._watchers.append(begin)

    async def wait(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the drain begins; return whether it has begun. Always lets other tasks run."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return self.begun
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return self.begun
        return True


def encode_last_retry(retry_ms: int) -> bytes:
    """Return a `retry` line that spreads the reconnections evenly from half to one and a half times the reconnection time.

    It is no block of its own: httpx-sse and others take that for an event without data.
    """
    return encode_retry(round(retry_ms * random.uniform(0.5, 1.5)))
