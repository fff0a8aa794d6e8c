"""New events of the event log, matched once for all subscribers to the same topics."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..log.event_log import EventLog, Stored
from ..log.runs import Piece, Run
from .names import Patterns

_MOST_RING_BYTES = 1024 * 1024
_ALL_RINGS_BYTES = 32 * 1024 * 1024
"""The approximate limit of all rings together. A block is in memory once, however many rings contain it."""
_MOST_REMEMBERED_TOPICS = 100_000
_READ_EVENTS = 2000
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """A read of the log after an offset, shared by all subscribers at that offset."""

    after: int
    through: int
    """The reading is complete up to this offset."""
    gone_through: int
    """The highest offset of a matching event that the log no longer has."""
    run: Run


@dataclass(slots=True)
class FeedCounts:
    """What all feeds of a log have done."""

    reads: int = 0
    """Reads of the log for subscribers."""
    wakes: int = 0
    """Waiting subscribers that events woke."""


class Feed:
    """The events of some topics from the offset `start` on: the newest in memory, those before them read from the log.

    A subscriber is a cursor: the offset of its last event. From `start` on it takes pieces from memory, before that it reads the log. It
    needs no queue and no copy, and it is woken only by events of its topics.
    """

    def __init__(self, patterns: Patterns, log: EventLog, counts: FeedCounts) -> None:
        self.patterns = patterns
        self.start = log.last
        """The offset after which all events are in memory."""
        self.subscribers = 0
        self._counts = counts
        self.matcher = patterns.matcher()
        self._log = log
        self._topics = set(patterns.topics)
        if not patterns.match_all and len(self._topics) < len(patterns.texts):
            self._topics.update(filter(self.matcher.fullmatch, log.topics))
        self._ring = Run()
        self._ring_bytes = _MOST_RING_BYTES
        self._waiters: set[asyncio.Future[bool]] = set()
        self._reading: dict[int, asyncio.Task[Reading]] = {}

    def __repr__(self) -> str:
        return f"<Feed {' '.join(self.patterns.texts)} subscribers={self.subscribers} start={self.start} ring={self._ring!r}>"

    def piece(self, after: int, upto: int | None = None, max_events: int | None = None) -> Piece | None:
        """Return the next events after `after`, which must be at least `start`; None when there is none yet. See `Run.piece`."""
        return self._ring.piece(after, upto, max_events)

    async def read(self, after: int) -> Reading:
        """Read the log after `after`. Concurrent calls for the same offset share one read. Raises LogError."""
        # A read that began shortly before will probably reach here; waiting for one from far away would not help.
        nearest = max((begun for begun in self._reading if begun <= after < begun + _READ_EVENTS), default=None)
        if nearest is not None:
            reading = await asyncio.shield(self._reading[nearest])
            if reading.through > after:
                return reading
        task = self._reading.get(after)
        if task is None:
            task = self._reading[after] = asyncio.create_task(self._read(after))
            task.add_done_callback(self._end_reading)
        return await asyncio.shield(task)  # a cancelled subscriber must not cancel the read of the others

    async def wait(self, seconds: float) -> bool:
        """Return True when an event of these topics came or `wake` was called, False after `seconds`."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _release, waiter)
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    def add(self, event: Stored) -> None:
        """Add a new event that matches. `wake` must follow."""
        self._ring.append(event)

    def wake(self) -> None:
        """Wake all waiting subscribers."""
        while len(self._ring) > 1 and self._ring.bytes > self._ring_bytes:
            self.start = self._ring.evict()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)
                self._counts.wakes += 1

    def add_topic(self, topic: str) -> None:
        """Add a topic that matches and may be new."""
        self._topics.add(topic)

    def limit_ring(self, limit: int) -> None:
        """Set how many bytes the ring may hold in memory."""
        self._ring_bytes = limit

    def forget(self) -> None:
        """Drop the ring, because some of its events are no longer in the log."""
        self._ring = Run()
        self.start = self._log.last
        self._reading.clear()

    async def _read(self, after: int) -> Reading:
        self._counts.reads += 1
        ring, upto = self._ring, self._log.last
        topics = None if self.patterns.match_all else self._topics.copy()
        batch = await self._log.read(after, upto, topics, max_events=_READ_EVENTS, max_bytes=_READ_BYTES)
        reading = Reading(after, batch.through, batch.gone_through, Run(batch.events))
        if ring is self._ring:
            self._put_in_front(reading)
        return reading

    def _put_in_front(self, reading: Reading) -> None:
        """Add a reading to the ring for later subscribers, if it reaches the ring and fits."""
        complete_after = max(reading.after, reading.gone_through)
        first = reading.run.piece(reading.after, max_events=1)
        if (
            complete_after < self.start <= reading.through
            and (first is None or first.first > complete_after)
            and self._ring.bytes + reading.run.bytes <= self._ring_bytes
        ):
            self._ring.put_in_front(reading.run, self.start)
            self.start = complete_after

    def _end_reading(self, task: asyncio.Task[Reading]) -> None:
        for after, running in list(self._reading.items()):
            if running is task:
                del self._reading[after]
        if not task.cancelled():
            task.exception()  # the waiters raise it; if all have left, no one needs to


class Feeds:
    """All feeds of an event log, one for each set of patterns with a subscriber."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._feeds: dict[Patterns, Feed] = {}
        self._by_name: dict[str, set[Feed]] = {}  # the feeds without wildcards
        self._wild: set[Feed] = set()
        self._matching: dict[str, tuple[Feed, ...]] = {}  # those of `_wild`, by topic
        self.counts = FeedCounts()
        log.watch(self._announce)

    def __repr__(self) -> str:
        return f"<Feeds {list(self._feeds.values())!r}>"

    def __len__(self) -> int:
        return len(self._feeds)

    @contextmanager
    def subscribe(self, patterns: Patterns) -> Iterator[Feed]:
        """Subscribe to the feed of `patterns` until the end of the block."""
        feed = self._feeds.get(patterns) or self._open(patterns)
        feed.subscribers += 1
        try:
            yield feed
        finally:
            feed.subscribers -= 1
            if not feed.subscribers:
                self._close(feed)

    def subscribers(self, topic: str) -> int:
        """Return the number of subscribers that get the events of `topic`."""
        return sum(feed.subscribers for feed in self._of(topic))

    def forget(self, topic: str) -> None:
        """Make the feeds forget `topic`, which the log has dropped."""
        for feed in self._of(topic):
            feed.forget()

    def wake_all(self) -> None:
        """Wake all waiting subscribers without an event, so that they see that the drain has begun."""
        for feed in self._feeds.values():
            feed.wake()

    def _open(self, patterns: Patterns) -> Feed:
        feed = self._feeds[patterns] = Feed(patterns, self._log, self.counts)
        if len(patterns.topics) == len(patterns.texts):
            for topic in patterns.topics:
                self._by_name.setdefault(topic, set()).add(feed)
        else:
            self._wild.add(feed)
            self._matching.clear()
        return feed

    def _close(self, feed: Feed) -> None:
        del self._feeds[feed.patterns]
        if feed in self._wild:
            self._wild.remove(feed)
            self._matching.clear()
            return
        for topic in feed.patterns.topics:
            self._by_name[topic].remove(feed)
            if not self._by_name[topic]:
                del self._by_name[topic]

    def _of(self, topic: str) -> Sequence[Feed]:
        wild = self._matching.get(topic)
        if wild is None:
            wild = tuple(feed for feed in self._wild if feed.matcher.fullmatch(topic))
            for feed in wild:
                feed.add_topic(topic)
            if len(self._matching) == _MOST_REMEMBERED_TOPICS:
                self._matching.clear()
            self._matching[topic] = wild
        named = self._by_name.get(topic)
        return (*wild, *named) if named else wild

    def _announce(self, events: Sequence[Stored]) -> None:
        if not self._feeds:
            return
        touched: dict[Feed, None] = {}
        for event in events:
            for feed in self._of(event.topic):
                feed.add(event)
                touched[feed] = None
        limit = min(_MOST_RING_BYTES, _ALL_RINGS_BYTES // len(self._feeds))
        for feed in touched:
            feed.limit_ring(limit)
            feed.wake()


def _release(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
