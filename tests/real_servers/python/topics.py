"""The events that a stream may send so far, and the numbers of streams that were opened and left, for each key."""

import asyncio
import gc
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping


class Topic:
    def __init__(self) -> None:
        self.opened = 0
        self.left = 0
        self.signals = 0
        self._signal = threading.Condition()
        self._waiting: set[asyncio.Event] = set()

    def go(self) -> None:
        """Allow one more event."""
        with self._signal:
            self.signals += 1
            self._signal.notify_all()
        for event in self._waiting:
            event.set()

    def state(self) -> dict[str, int]:
        gc.collect()  # frameworks drop the generator of a client that left, and a cycle may hold it
        return {"opened": self.opened, "left": self.left}

    async def numbers(self, query: Mapping[str, str], last: str | None) -> AsyncIterator[int]:
        """Yield the numbers of the events when they may be sent."""
        number, count, burst, tick = (int(value) for value in (last or 0, query["count"], query["burst"], query["tick"]))
        self.opened += 1
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            while number < count:
                while number >= burst + self.signals and not tick:
                    event.clear()
                    await event.wait()
                await asyncio.sleep(tick / 1000 if number >= burst else 0)
                number += 1
                yield number
            self.left -= 1
        finally:
            self._waiting.discard(event)
            self.left += 1

    def numbers_in_thread(self, query: Mapping[str, str], last: str | None) -> Iterator[int]:
        """Yield the numbers of the events when they may be sent."""
        number, count, burst, tick = (int(value) for value in (last or 0, query["count"], query["burst"], query["tick"]))
        self.opened += 1
        try:
            while number < count:
                if number >= burst and tick:
                    time.sleep(tick / 1000)
                elif number >= burst:
                    with self._signal:
                        self._signal.wait_for(lambda: number < burst + self.signals)  # noqa: B023
                number += 1
                yield number
            self.left -= 1
        finally:
            self.left += 1


topics: defaultdict[str, Topic] = defaultdict(Topic)
REFUSAL = '{"error": {"message": "too many requests"}}'


def block(number: int, query: Mapping[str, str]) -> str:
    return f"id: {number}\ndata: {number} {'x' * int(query['size'])}\n\n"
