"""An event log in memory that a test controls, and that records its calls."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from producer.log.event_log import Appended, Batch, IdempotencyKey, LogError, Stored, Topic


class ScriptedLog:
    """An EventLog of lists. While `held` is set, reads wait for it."""

    def __init__(self) -> None:
        self.epoch = "epoch"
        self.last = 0
        self.topics: dict[str, Topic] = {}
        self.events: list[Stored] = []
        self.reads: list[tuple[int, int, frozenset[str] | None]] = []
        self.failing = False
        self.held: asyncio.Event | None = None
        self._announce: list[Callable[[Sequence[Stored]], None]] = []

    def publish(self, *topics: str, size: int = 0) -> list[bytes]:
        """Append one event for each topic, all in one announcement, and return the blocks."""
        events = []
        for name in topics:
            self.last += 1
            block = f"id: {self.epoch}-{self.last}\ndata: {'x' * size}\n\n".encode()
            events.append(Stored(self.last, name, block))
            topic = self.topics.setdefault(name, Topic(name))
            topic.count, topic.last = topic.count + 1, self.last
        self.events += events
        for announce in self._announce:
            announce(events)
        return [event.block for event in events]

    def lose(self, *offsets: int) -> None:
        """Remove events, as retention does."""
        for event in [event for event in self.events if event.offset in offsets]:
            self.events.remove(event)
            topic = self.topics[event.topic]
            topic.gone_through = max(topic.gone_through, event.offset)

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        self._announce.append(announce)

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        self.reads.append((after, upto, None if topics is None else frozenset(topics)))
        if self.held is not None:
            await self.held.wait()
        if self.failing:
            raise LogError("scripted")
        wanted = self.topics if topics is None else topics
        found = [event for event in self.events if after < event.offset <= upto and event.topic in wanted][:max_events]
        through = found[-1].offset if len(found) == max_events else upto
        return Batch(found, through, max((self.topics[name].gone_through for name in wanted if name in self.topics), default=0))

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        raise NotImplementedError

    async def get(self, offset: int) -> Stored | None:
        raise NotImplementedError

    async def first(self, topics: Collection[str] | None = None) -> int:
        raise NotImplementedError

    async def offset_before(self, time_ms: int) -> int:
        raise NotImplementedError

    async def drop(self, topic: str) -> int:
        raise NotImplementedError

    async def trim(self) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
