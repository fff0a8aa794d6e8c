"""Publishers, and subscribers that disconnect and resume at random, during drops, retention and restarts of the producer.

`make soak` runs it for SOAK_SECONDS; with SOAK_SEED it repeats the decisions of an earlier run.
"""

import asyncio
import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from eventstream import Event, Framer, Parser
from producer.log.event_log import Stored, parse_event_id
from producer.log.retention import Retention
from producer.settings import Settings
from producer.topics import feeds
from producer.topics.names import Patterns
from tests.kit.producer import Producer, serve
from tests.kit.waiting import GUARD_SECONDS
from tests.producer.publishing import post

SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))
SEED = int(os.environ.get("SOAK_SEED", "3"))
ROUNDS = 3
TOPICS = ("a", "b", "c.x", "c.y")
ASKED = [("a",), ("b",), ("c.*",), (">",), ("a", "c.>"), ("*",), ("c.x", "b"), (">",)]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 2 + 120)]


@dataclass
class Published:
    """All events that the log ever announced."""

    events: list[Stored] = field(default_factory=list)
    retained: set[int] = field(default_factory=set)

    async def read_retained(self, producer: Producer) -> None:
        after = 0
        while after < producer.log.last:
            batch = await producer.log.read(after, producer.log.last)
            self.retained.update(event.offset for event in batch.events)
            after = batch.through

    def offsets(self, asked: Sequence[str]) -> list[int]:
        """Return the offsets of all events that were ever in these topics."""
        matcher = Patterns.parse(asked).matcher()
        return [event.offset for event in self.events if matcher.fullmatch(event.topic)]


class Subscriber:
    """Connects and disconnects, and keeps the events it received."""

    def __init__(self, asked: Sequence[str], chance: random.Random) -> None:
        self.asked = asked
        self.seen: list[int] = []
        self.gaps: list[tuple[int, int]] = []
        """From the requested offset to that up to which events may be missing."""
        self._last_id = ""
        self._chance = chance

    async def come_and_go(self, http: httpx.AsyncClient, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                async with asyncio.timeout(self._chance.uniform(0.02, 0.5)):
                    await self._visit(http)
            except (TimeoutError, httpx.TransportError):  # it leaves in the middle of something, or the producer does
                await asyncio.sleep(self._chance.uniform(0, 0.3))

    async def catch_up(self, producer: Producer) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            await self._visit(producer.http, follow="false")

    async def _visit(self, http: httpx.AsyncClient, **query: str) -> None:
        framer, parser = Framer(), Parser()
        params = {"topic": [*self.asked], "from": "start", **query}
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        pause = self._chance.choice([0, 0, 0.01])
        async with http.stream("GET", "/events", params=params, headers=headers) as answer:
            assert answer.status_code in (200, 204, 503)
            async for part in answer.aiter_raw():
                for event in parser.feed(framer.feed(part)) if answer.status_code == 200 else ():
                    self._take(event)
                await asyncio.sleep(pause)

    def _take(self, event: Event) -> None:
        asked_after = offset_of(self._last_id)
        self._last_id = event.last_event_id
        if event.type == "gap":
            told = json.loads(event.data)
            assert told["reason"] == "not-retained", told
            assert offset_of(told["asked"]) == asked_after, told
            self.gaps.append((asked_after, offset_of(told.get("gone_through", event.last_event_id))))
        else:
            self.seen.append(offset_of(event.last_event_id))

    def check(self, published: Published) -> None:
        """Assert that its events are in order, once each, and that every missing one is covered by a gap."""
        wanted = published.offsets(self.asked)
        assert self.seen == sorted(set(self.seen))
        assert set(self.seen) <= set(wanted)
        missing = set(wanted) - set(self.seen)
        assert missing.isdisjoint(published.retained)
        first = self.seen[0] if self.seen else published.events[-1].offset
        untold = [offset for offset in missing if offset > first and not any(after < offset <= to for after, to in self.gaps)]
        assert untold == [], self.gaps
        gone = [offset for offset in wanted if offset not in published.retained]
        assert all(any(offset > after for offset in gone) for after, _ in self.gaps)


def offset_of(event_id: str) -> int:
    found = parse_event_id(event_id)
    return found[1] if found else 0


async def publish(producer: Producer, chance: random.Random, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        events = [{"data": "x" * chance.randrange(300)} for _ in range(chance.choice([1, 1, 2, 30]))]
        assert (await post(producer, chance.choice(TOPICS), events)).status_code == 201
        await asyncio.sleep(chance.choice([0, 0, 0.02]))


async def remove(producer: Producer, chance: random.Random, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        if chance.random() < 0.3:
            await producer.http.delete(f"/topics/{chance.choice(TOPICS)}")
        else:
            await producer.log.trim()


async def test_every_subscriber_gets_every_retained_event_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_MOST_RING_BYTES", 4000)  # small, so that subscribers alternate between memory and log
    monkeypatch.setattr(feeds, "_READ_EVENTS", 25)
    published = Published()
    subscribers = [Subscriber(asked, random.Random(f"{SEED}/{number}")) for number, asked in enumerate(ASKED * 2)]
    for number in range(ROUNDS):
        chance = random.Random(f"{SEED}/{number}/publishers")
        async with (
            serve(Settings(log_dir=tmp_path, topic_retry_ms=0), retention=Retention(max_events=1000)) as producer,
            httpx.AsyncClient(base_url=producer.http.base_url) as visiting,  # its pool may lose a connection whenever a visit is cancelled
        ):
            producer.log.watch(published.events.extend)
            stopping = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(3):
                    tasks.create_task(publish(producer, random.Random(chance.random()), stopping))
                tasks.create_task(remove(producer, chance, stopping))
                for subscriber in subscribers:
                    tasks.create_task(subscriber.come_and_go(visiting, stopping))
                await asyncio.sleep(SECONDS / ROUNDS)
                stopping.set()
            if number == ROUNDS - 1:
                for subscriber in subscribers:
                    await subscriber.catch_up(producer)
                await published.read_retained(producer)
    assert len(published.events) == published.events[-1].offset
    assert len(published.retained) < len(published.events)
    for subscriber in subscribers:
        subscriber.check(published)
    assert sum(len(subscriber.seen) for subscriber in subscribers) > 1000
