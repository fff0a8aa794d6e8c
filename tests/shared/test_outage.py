"""An upstream that is down for a while: how soon and how often it is retried, and by which of many streams."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.shared.conftest import Stage, StartStage
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

FOR_EVER = 600_000
"""Milliseconds: longer than any test."""


class Grave:
    """Listens in place of an upstream, and hangs up on each connection without an answer."""

    def __init__(self) -> None:
        self.attempts: list[float] = []

    async def until(self, count: int) -> None:
        """Return when `count` connections have come."""
        async with asyncio.timeout(2 * GUARD_SECONDS):
            while len(self.attempts) < count:
                await asyncio.sleep(0.01)

    def _hang_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts.append(asyncio.get_running_loop().time())
        writer.transport.abort()

    @contextlib.asynccontextmanager
    async def in_place_of(self, upstream: Upstream) -> AsyncIterator[None]:
        async with upstream.away():
            server = await asyncio.start_server(self._hang_up, "127.0.0.1", upstream.port, backlog=1024)
            try:
                yield
            finally:
                server.close()


async def followed(stage: Stage, stack: contextlib.AsyncExitStack, count: int) -> tuple[list[Topic], list[Subscriber]]:
    """Open `count` topics with one subscriber each, which has received an event."""
    topics = [stage.topic("", retry=FOR_EVER) for _ in range(count)]
    subscribers = [await stack.enter_async_context(stage.join(topic)) for topic in topics]
    for topic, subscriber in zip(topics, subscribers, strict=True):
        topic.publish()
        await subscriber.until_number(1)
    return topics, subscribers


async def test_many_streams_retry_a_dead_upstream_one_at_a_time_and_all_resume_soon_after_it(start_stage: StartStage) -> None:
    """The upstream's `retry` is ten minutes, so by itself each stream would reconnect far too late."""
    count, more = 60, 5
    grave = Grave()
    async with start_stage({}) as stage, contextlib.AsyncExitStack() as stack:
        topics, subscribers = await followed(stage, stack, count)
        async with grave.in_place_of(stage.upstream):
            await grave.until(count + more)
            assert grave.attempts[count + more - 1] - grave.attempts[0] > 2, "0.25, 0.25, 0.5, 1 and 2 s lie between the last ones"
        for topic, subscriber in zip(topics, subscribers, strict=True):
            topic.publish()
            received = await subscriber.until_number(2)
            assert (received.events, received.gaps) == (topic.log.blocks, [])
        assert [len(topic.requests) for topic in topics] == [2] * count


async def test_lost_stream_is_retried_at_once_whatever_its_retry(stage: Stage) -> None:
    topic = stage.topic(retry=FOR_EVER)
    loop = asyncio.get_running_loop()
    async with stage.join(topic) as subscriber:
        for number in (1, 2, 3):
            topic.publish()
            await subscriber.until_number(number)
            killed = loop.time()
            topic.kill("reset" if number % 2 else "close")
            await topic.until(lambda: len(topic.requests) == number + 1 and topic.open == 1)  # noqa: B023
            assert loop.time() - killed > 0.09
        topic.publish()
        assert (await subscriber.until_number(4)).events == topic.log.blocks


async def test_stream_that_the_upstream_ended_waits_for_its_retry(stage: Stage) -> None:
    topic, other = stage.topic(retry=1500), stage.topic(retry=1500)
    loop = asyncio.get_running_loop()
    async with stage.join(topic) as subscriber, stage.join(other) as another:
        topic.publish()
        other.publish()
        await subscriber.until_number(1)
        await another.until_number(1)
        ended = loop.time()
        topic.kill("complete")
        other.kill("close")
        await other.until(lambda: len(other.requests) == 2)
        assert len(topic.requests) == 1
        await topic.until(lambda: len(topic.requests) == 2)
        assert loop.time() - ended > 1.4


async def test_stream_without_a_waiting_subscriber_is_not_retried_until_there_is_one(stage: Stage) -> None:
    left, watched = stage.topic(retry=FOR_EVER), stage.topic(retry=FOR_EVER)
    async with stage.join(watched) as witness:
        async with stage.join(left) as subscriber:
            left.publish()
            await subscriber.until_number(1)
        async with asyncio.timeout(GUARD_SECONDS):
            while await stage.gateway.metric("gateway_open_requests") != 1:
                await asyncio.sleep(0.01)
        left.kill()
        for number in (1, 2, 3):
            watched.publish()
            await witness.until_number(number)
            watched.kill()
            await watched.until(lambda: len(watched.requests) == number + 1 and watched.open == 1)  # noqa: B023
        assert len(left.requests) == 1
        async with stage.join(left) as newcomer:
            await left.until(lambda: left.open == 1)
            left.publish()
            assert (await newcomer.until_number(2)).numbers == [2]


@pytest.mark.parametrize(
    ("body", "least"),
    [
        pytest.param(b"retry: 0\n\n: nothing new\n\n", [0.1, 0.2, 0.4, 0.8], id="no event"),
        pytest.param(b"retry: 2\nid: 1\ndata: a\n\n", [0.1, 0.1, 0.2, 0.4], id="the same event each time"),
        pytest.param(b"retry: 0\ndata: a\n\n", [0.1, 0.1, 0.1, 0.1], id="new events"),
    ],
)
async def test_streams_that_end_at_once_back_off_unless_they_bring_a_new_event(tmp_path: Path, body: bytes, least: list[float]) -> None:
    asked_at: list[float] = []

    def end_at_once(_asked: Asked) -> Script:
        asked_at.append(asyncio.get_running_loop().time())
        return [EVENT_STREAM_HEAD + chunk(body) + LAST_CHUNK]

    async with (
        ScriptedUpstream(end_at_once) as upstream,
        running([shared("/", upstream.url)], tmp_path) as gateway,
        Subscriber(gateway.port, "/") as subscriber,
    ):
        await subscriber.join()
        await upstream.wait_for_requests(5)
    waits = [after - before for before, after in itertools.pairwise(asked_at[:5])]
    assert all(wait > 0.9 * shortest for wait, shortest in zip(waits, least, strict=True)), waits


async def test_catch_up_with_an_upstream_that_is_down_takes_its_turn(start_stage: StartStage) -> None:
    count = 30
    grave = Grave()
    async with start_stage({"history_max_blocks": 5}) as stage, contextlib.AsyncExitStack() as stack:
        topic = stage.topic("", retry=FOR_EVER)
        topic.publish(50)
        witness = await stack.enter_async_context(stage.join(topic))
        topic.publish(10)
        await witness.until_number(60)
        late = [stage.subscriber(topic, last_event_id=str(number)) for number in range(1, count + 1)]
        async with grave.in_place_of(stage.upstream):
            joining = asyncio.gather(*(subscriber.join() for subscriber in late))
            await grave.until(1 + count + 4)
            assert grave.attempts[count + 4] - grave.attempts[0] > 1
        await joining
        for number, subscriber in enumerate(late, 1):
            assert (await subscriber.until_number(60)).numbers == list(range(number + 1, 61))
            subscriber.leave()


async def test_unfinished_block_of_an_ended_stream_is_discarded_but_its_retry_counts(tmp_path: Path) -> None:
    """The next connection's bytes follow downstream, so the block cannot be passed on."""
    asked_at: list[float] = []

    def play(_asked: Asked) -> Script:
        asked_at.append(asyncio.get_running_loop().time())
        if len(asked_at) == 1:
            return [EVENT_STREAM_HEAD + chunk(b"id: 1\ndata: 1 a\n\nretry: 700\ndata: [DONE]\n") + LAST_CHUNK]
        return [EVENT_STREAM_HEAD + chunk(b"id: 2\ndata: 2 b\n\n"), released, chunk(b"id: 3\ndata: 3 c\n\n"), Silence()]

    released = Pause()
    async with (
        ScriptedUpstream(play) as upstream,
        running([shared("/", upstream.url)], tmp_path) as gateway,
        Subscriber(gateway.port, "/") as first,
        Subscriber(gateway.port, "/") as newcomer,
    ):
        await first.join()
        assert (await first.until_number(2)).blocks == [b"id: 1\ndata: 1 a\n\n", b"id: 2\ndata: 2 b\n\n"]
        assert asked_at[1] - asked_at[0] > 0.65
        assert upstream.requests[0].left.is_set(), "each attempt has a connection of its own, so none is stale"
        await newcomer.join()
        released.go()
        assert (await newcomer.until_number(3)).told_ahead == [700]
