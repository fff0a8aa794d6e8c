"""How subscribers' streams run and end: heartbeats, drain, slow readers, failed logs."""

import asyncio
import re
import socket

import pytest

from eventstream import Framer, Parser
from producer.log.event_log import LogError
from producer.settings import Settings
from tests.kit.producer import Producer, serve
from tests.kit.waiting import GUARD_SECONDS
from tests.producer.publishing import post, problem_of
from tests.producer.subscribing import subscribe

PATH = "/topics/a/events"
LAST_CHUNK = b"0\r\n\r\n"


async def publish_much(producer: Producer, topic: str, batches: int, size: int = 2000) -> None:
    """Publish batches of 100 events of `size` bytes, with running numbers as their types."""
    for batch in range(batches):
        await post(producer, topic, [{"data": "x" * size, "type": str(batch * 100 + number)} for number in range(100)])


def types_of(body: bytes) -> list[int]:
    return [int(event.type) for event in Parser().feed(Framer().feed(body))]


class RawSubscriber:
    """A connection with a small receive buffer, which reads only when the test does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, producer: Producer, target: str) -> "RawSubscriber":
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", producer.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=16 * 1024)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: producer\r\n\r\n".encode())
        async with asyncio.timeout(GUARD_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def rest(self) -> tuple[bytes, bool]:
        """Return the body, its chunks joined, until the connection ends, and whether the last chunk came."""
        body = b""
        async with asyncio.timeout(GUARD_SECONDS):
            while head := await self._reader.readline():
                if head == b"0\r\n":
                    return body, True
                body += (await self._reader.readexactly(int(head, 16) + 2))[:-2]
        return body, False


async def test_heartbeats_come_between_blocks_while_nothing_is_published() -> None:
    async with serve(Settings(heartbeat_seconds=0.05)) as producer:
        async with subscribe(producer, PATH) as subscriber:
            await subscriber.until(b"retry: 3000\n:\n:\n")
            await post(producer, "b", {"data": 1})
            await post(producer, "a", {"data": 1})
            await subscriber.event()
            await subscriber.until(b"data: 1\n\n:\n")
        assert re.fullmatch(rb"retry: 3000\n(:\n)+id: \w+-2\ndata: 1\n\n(:\n)+", subscriber.bytes)


async def test_drain_ends_every_stream_with_a_jittered_retry_at_a_block_boundary() -> None:
    async with serve(Settings(topic_retry_ms=1000, heartbeat_seconds=3600)) as producer:
        await post(producer, "a", {"data": 1})
        async with subscribe(producer, PATH) as waiting, subscribe(producer, "/topics/>/events", from_="start") as replaying:
            await waiting.until(b"retry: 1000\n")
            await replaying.event()
            producer.drain.begin()
            for subscriber in (waiting, replaying):
                assert await subscriber.rest() == []
                farewell = re.search(rb"retry: (\d+)\n\Z", subscriber.bytes)
                assert farewell
                assert 500 <= int(farewell[1]) <= 1500
        for path in (PATH, "/events?topic=a"):
            assert problem_of(await producer.http.get(path), 503)
        assert await producer.meter("producer_streams_ended_total") == 2


async def test_slow_subscriber_is_disconnected_at_a_block_boundary_and_resumes_while_others_keep_their_pace() -> None:
    async with serve(Settings(send_timeout_seconds=2)) as producer, subscribe(producer, PATH) as quick:
        await quick.until(b"retry: 3000\n")
        slow = await RawSubscriber.open(producer, PATH)

        async def read_late() -> tuple[bytes, bool]:
            await producer.gives_up()
            return await slow.rest()  # the data sent before, for which there is as much time again

        reading = asyncio.create_task(read_late())
        publishing = asyncio.create_task(publish_much(producer, "a", 30))
        assert [int((await quick.event()).type) for _ in range(3000)] == list(range(3000))
        await publishing
        body, complete = await reading
        slow.writer.close()
        await producer.meter_reaches("producer_streams_ended_total", 1)
        assert not complete
        assert body.endswith(b"\n\n")
        seen = types_of(body)
        assert seen == list(range(len(seen)))
        assert 0 < len(seen) < 3000
        async with subscribe(producer, PATH, last_event_id=f"{producer.log.epoch}-{len(seen)}", follow="false") as again:
            assert [int(event.type) for event in await again.rest()] == list(range(len(seen), 3000))
        ended = (await producer.http.get("/metrics")).text
        assert 'producer_streams_ended_total{reason="stalled",route="GET /topics/{topic}/events"} 1.0' in ended


async def test_subscriber_that_reads_slowly_gets_everything() -> None:
    async with serve(Settings(send_timeout_seconds=2)) as producer:
        await publish_much(producer, "a", 30)  # before subscribing, since on a busy machine it takes longer than a client may stall
        slow = await RawSubscriber.open(producer, f"{PATH}?from=start&limit=3000")
        await producer.holds_up_writing()
        body, complete = await slow.rest()
        slow.writer.close()
        assert complete
        assert types_of(body) == list(range(3000))


async def test_replay_continues_with_new_events_without_loss_repeat_or_disorder() -> None:
    async with serve(Settings()) as producer:
        await publish_much(producer, "a", 5)
        publishers = [asyncio.create_task(publish_much(producer, topic, 10)) for topic in ("a", "b", "a")]
        offsets = []
        async with subscribe(producer, "/topics/*/events", from_="start") as subscriber:
            while len(offsets) < 3500:
                event_id = (await subscriber.event()).id
                assert event_id is not None
                offsets.append(int(event_id.rpartition("-")[2]))
        await asyncio.gather(*publishers)
        assert offsets == list(range(1, 3501))


async def test_two_thousand_subscribers_share_reads_and_blocks_and_others_sleep() -> None:
    async with serve(Settings()) as producer:
        await publish_much(producer, "a", 1, size=10)
        subscribers = await asyncio.gather(*(RawSubscriber.open(producer, f"{PATH}?from=start&limit=102") for _ in range(2000)))
        idle = await RawSubscriber.open(producer, "/topics/b/events")
        await producer.meter_reaches("producer_streams_open", 2001)
        await producer.meter_reaches("producer_events_sent_total", 200_000)
        reads = await producer.meter("producer_feed_reads_total")
        for _ in range(2):
            await post(producer, "a", {"data": "live", "type": "100"})
        bodies = await asyncio.gather(*(subscriber.rest() for subscriber in subscribers))
        assert len({body for body, _ in bodies}) == 1
        assert types_of(bodies[0][0]) == [*range(100), 100, 100]
        assert await producer.meter("producer_feeds_open") == 1
        assert 1 <= reads <= 20
        assert 2000 <= await producer.meter("producer_feed_wakes_total") <= 4000
        for subscriber in (*subscribers, idle):
            subscriber.writer.close()


async def test_subscriber_of_an_unreadable_log_is_disconnected_and_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object, **_options: object) -> None:
        raise LogError("scripted")

    async with serve(Settings()) as producer:
        await post(producer, "a", {"data": 1})
        with monkeypatch.context() as patch:
            patch.setattr(producer.log, "read", fail)
            async with subscribe(producer, PATH, from_="start") as subscriber:
                assert await subscriber.rest() == []
            assert problem_of(await producer.http.get(f"{PATH}?follow=false&last_event_id=x"), 503)
        assert 'reason="failed"' in (await producer.http.get("/metrics")).text
        async with subscribe(producer, PATH, from_="start", follow="false") as subscriber:
            assert [event.data for event in await subscriber.rest()] == ["1"]


async def test_client_that_leaves_while_it_waits_ends_its_stream_at_once() -> None:
    async with serve(Settings()) as producer:
        async with subscribe(producer, PATH) as subscriber:
            await subscriber.until(b"retry: 3000\n")
            await producer.meter_reaches("producer_streams_open", 1)
        await producer.meter_reaches("producer_streams_open", 0)
        assert await producer.meter("producer_feeds_open") == 0
