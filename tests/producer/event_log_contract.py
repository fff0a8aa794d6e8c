"""The contract of every event log, whatever its storage: subclass `EventLogContract` and give it a log to open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from producer.log.event_log import Appended, EventLog, IdempotencyKey, KeyReused, LogError, Stored
from producer.log.retention import Retention
from tests.kit.waiting import GUARD_SECONDS

OpenLog = Callable[..., AbstractAsyncContextManager[EventLog]]
"""Opens the log of one test, the same each time, with `retention=` and `key_retention_seconds=`; closes it at the end."""


def blocks(*texts: str) -> list[bytes]:
    return [f"data: {text}\n\n".encode() for text in texts]


def stored(log: EventLog, offset: int, topic: str, text: str) -> Stored:
    return Stored(offset, topic, f"id: {log.epoch}-{offset}\ndata: {text}\n\n".encode())


def key(name: str, content: str = "content") -> IdempotencyKey:
    return IdempotencyKey(name, content.encode())


async def read_all(log: EventLog, topics: Sequence[str] | None = None, after: int = 0, **limits: int) -> list[Stored]:
    """Read to the end, as a subscriber does."""
    events: list[Stored] = []
    while after < log.last:
        batch = await log.read(after, log.last, topics, **limits)
        assert batch.through > after
        assert all(after < event.offset <= batch.through for event in batch.events)
        events += batch.events
        after = batch.through
    return events


class EventLogContract:
    @pytest.fixture
    def open_log(self) -> OpenLog:
        raise NotImplementedError

    @pytest.fixture
    async def log(self, open_log: OpenLog) -> AsyncIterator[EventLog]:
        async with asyncio.timeout(GUARD_SECONDS), open_log() as log:
            yield log

    async def test_offsets_count_from_one_over_all_topics(self, log: EventLog) -> None:
        assert log.last == 0
        assert await log.append("a", blocks("one")) == Appended(1, 1)
        assert await log.append("b", blocks("two", "three")) == Appended(2, 3)
        assert await log.append("a", blocks("four")) == Appended(4, 4)
        assert log.last == 4

    async def test_read_returns_whole_blocks_with_their_ids_in_order(self, log: EventLog) -> None:
        await log.append("a", blocks("one"))
        await log.append("b", [b"event: x\ndata: two\ndata\n\n"])
        batch = await log.read(0, log.last)
        assert list(batch.events) == [
            stored(log, 1, "a", "one"),
            Stored(2, "b", f"id: {log.epoch}-2\nevent: x\ndata: two\ndata\n\n".encode()),
        ]
        assert (batch.through, batch.gone_through) == (2, 0)

    async def test_events_and_epoch_survive_a_restart(self, open_log: OpenLog) -> None:
        async with open_log() as log:
            await log.append("a", blocks("one"), key("k"))
            epoch = log.epoch
        async with open_log() as log:
            assert (log.epoch, log.last, log.topics["a"].count) == (epoch, 1, 1)
            assert await log.append("a", blocks("one"), key("k")) == Appended(1, 1, repeated=True)
            assert await log.append("a", blocks("two")) == Appended(2, 2)
            assert await read_all(log) == [stored(log, 1, "a", "one"), stored(log, 2, "a", "two")]

    async def test_epoch_is_letters_and_digits(self, log: EventLog) -> None:
        assert log.epoch.isascii()
        assert log.epoch.isalnum()

    @pytest.mark.parametrize("others", [0, 5, 70, 300])
    async def test_read_returns_only_the_events_of_the_named_topics(self, log: EventLog, others: int) -> None:
        for number in range(1, 41):
            await log.append(f"t{number % 4}", blocks(str(number)))
        names = ["t1", "t3", *(f"unknown{number}" for number in range(others))]
        assert [event.offset for event in await read_all(log, names)] == list(range(1, 41, 2))
        assert [event.offset for event in await read_all(log, names, max_events=3)] == list(range(1, 41, 2))

    @pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 200])
    async def test_any_number_of_topics_is_read_in_the_order_of_the_log(self, log: EventLog, count: int) -> None:
        for number in range(500):
            await log.append(f"t{number * 7 % 250}", blocks(str(number)))
        names = [f"t{number}" for number in range(count)]
        everything = await read_all(log)
        assert len(everything) == 500
        assert await read_all(log, names) == [event for event in everything if event.topic in names]
        assert await read_all(log, names, max_events=7) == await read_all(log, names)

    async def test_read_stays_within_its_range(self, log: EventLog) -> None:
        for number in range(1, 11):
            await log.append("a", blocks(str(number)))
        for topics in (None, ["a"], [f"u{number}" for number in range(100)] + ["a"]):
            batch = await log.read(3, 7, topics)
            assert ([event.offset for event in batch.events], batch.through) == ([4, 5, 6, 7], 7)
            batch = await log.read(7, 7, topics)
            assert (list(batch.events), batch.through) == ([], 7)

    async def test_read_returns_one_event_whatever_its_size(self, log: EventLog) -> None:
        await log.append("a", blocks("x" * 5000, "y" * 5000, "z"))
        for topics in (None, ["a"], [f"u{number}" for number in range(100)] + ["a"]):
            batch = await log.read(0, log.last, topics, max_bytes=100)
            assert ([event.offset for event in batch.events], batch.through) == ([1], 1)
            batch = await log.read(1, log.last, topics, max_bytes=5100)
            assert ([event.offset for event in batch.events], batch.through) == ([2, 3], 3)

    async def test_no_topics_means_no_events(self, log: EventLog) -> None:
        await log.append("a", blocks("one"))
        batch = await log.read(0, log.last, [])
        assert (list(batch.events), batch.through) == ([], 1)

    async def test_watchers_get_every_event_once_in_order_before_its_append_returns(self, log: EventLog) -> None:
        told: list[Stored] = []

        def announce(events: Sequence[Stored]) -> None:
            told.extend(events)
            assert log.last == told[-1].offset
            assert sum(topic.count for topic in log.topics.values()) == len(told)

        log.watch(announce)

        async def publish(topic: str) -> None:
            for number in range(20):
                done = await log.append(topic, blocks(str(number), "more"))
                assert [event.topic for event in told[done.first - 1 : done.last]] == [topic, topic]

        await asyncio.gather(*(publish(f"t{number}") for number in range(10)))
        assert [event.offset for event in told] == list(range(1, 401))
        assert told == await read_all(log)

    async def test_concurrent_calls_append_in_their_order(self, log: EventLog) -> None:
        done = await asyncio.gather(*(log.append("a", blocks(*("x" * (number % 3 + 1)))) for number in range(100)))
        assert [first.last + 1 for first in done[:-1]] == [following.first for following in done[1:]]

    async def test_key_makes_an_append_idempotent(self, log: EventLog) -> None:
        assert await log.append("a", blocks("one", "two"), key("k")) == Appended(1, 2)
        assert await log.append("a", blocks("one", "two"), key("k")) == Appended(1, 2, repeated=True)
        assert await log.append("b", blocks("one"), key("k")) == Appended(3, 3)
        with pytest.raises(KeyReused):
            await log.append("a", blocks("other"), key("k", "other"))
        assert log.last == 3

    async def test_concurrent_appends_with_one_key_append_once(self, log: EventLog) -> None:
        same = [log.append("a", blocks("one"), key("k")) for _ in range(20)]
        others = [log.append("a", blocks("other"), key("k", "other")) for _ in range(5)]
        plain = [log.append("a", blocks("plain")) for _ in range(5)]
        done = await asyncio.gather(*same, *others, *plain, return_exceptions=True)
        assert done[:20] == [Appended(1, 1), *[Appended(1, 1, repeated=True)] * 19]
        assert [type(error) for error in done[20:25]] == [KeyReused] * 5
        assert done[25:] == [Appended(offset, offset) for offset in range(2, 7)]

    async def test_get_returns_one_event(self, log: EventLog) -> None:
        await log.append("a", blocks("one", "two"))
        assert await log.get(2) == stored(log, 2, "a", "two")
        assert await log.get(3) is None
        assert await log.get(0) is None

    async def test_first_is_the_oldest_retained_event(self, log: EventLog) -> None:
        assert await log.first() == 0
        await log.append("a", blocks("one"))
        await log.append("b", blocks("two"))
        await log.append("c", blocks("three"))
        assert await log.first() == 1
        assert await log.first(["c", "b"]) == 2
        assert await log.first(["nothing"]) == 0
        await log.drop("a")
        assert await log.first() == 2

    async def test_drop_removes_the_events_of_one_topic_for_good(self, open_log: OpenLog) -> None:
        async with open_log() as log:
            await log.append("a", blocks("one", "two"), key("k"))
            await log.append("b", blocks("three"))
            assert await log.drop("a") == 2
            assert await log.drop("a") == 0
            assert await log.drop("nothing") == 0
            topic = log.topics["a"]
            assert (topic.count, topic.bytes, topic.last, topic.gone_through) == (0, 0, 0, 2)
        async with open_log() as log:
            assert await read_all(log) == [stored(log, 3, "b", "three")]
            assert await log.get(1) is None
            assert (await log.read(0, log.last, ["a"])).gone_through == 2
            assert (await log.read(0, log.last, ["b"])).gone_through == 0
            assert (await log.read(0, log.last)).gone_through == 2
            assert await log.append("a", blocks("again"), key("k")) == Appended(4, 4)
            assert await read_all(log, ["a"]) == [stored(log, 4, "a", "again")]

    async def test_offset_is_never_reused(self, open_log: OpenLog) -> None:
        async with open_log() as log:
            await log.append("a", blocks("one", "two"))
            await log.drop("a")
        async with open_log() as log:
            assert log.last == 2
            assert await log.append("b", blocks("three")) == Appended(3, 3)

    async def test_trim_removes_the_oldest_beyond_a_number_of_events(self, open_log: OpenLog) -> None:
        async with open_log() as log:
            await log.append("quiet", blocks("first"))
            await log.append("a", blocks(*map(str, range(10))))
        async with open_log(retention=Retention(max_events=4)) as log:
            while await log.trim():
                pass
            assert [event.offset for event in await read_all(log)] == [8, 9, 10, 11]
            assert (await log.read(0, log.last, ["a"])).gone_through == 7
            assert (await log.read(0, log.last, ["quiet"])).gone_through == 1
            assert (log.topics["a"].count, log.topics["quiet"].last) == (4, 0)

    async def test_append_during_and_after_close_raises(self, open_log: OpenLog) -> None:
        async with open_log() as log:
            under_way = asyncio.ensure_future(log.append("a", blocks("one")))
            await asyncio.sleep(0)
            await asyncio.gather(log.close(), log.close())
            assert await under_way == Appended(1, 1)
            for late in (log.append("a", blocks("two")), log.read(0, 1), log.drop("a"), log.trim()):
                with pytest.raises(LogError, match="closed"):
                    await late
        async with open_log() as log:
            assert log.last == 1
