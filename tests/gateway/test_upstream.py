"""The guard for what gateway/http/upstream.py takes for granted of aiohttp: its real client against scripted upstreams."""

import asyncio

import aiohttp
import pytest
import uvloop

from gateway.http.read_buffer import READ_BYTES, ReadBuffer
from gateway.http.upstream import attach, open_session
from gateway.http.upstream_protocol import UpstreamProtocol
from gateway.streams.relay import Relay
from gateway.streams.wheel import TimerWheel
from tests.gateway.receiving import BROKEN, Recorder, attached, response_to
from tests.gateway.subscribing import connected
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Disconnect, Flood, Pause, ScriptedUpstream, Silence, Step, chunk
from tests.kit.waiting import GUARD_SECONDS, settle

LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
EVENTS = [b"data: %d\n\n" % number for number in range(5)]


async def test_plain_chunked_stream_is_attached_and_its_connection_is_ours() -> None:
    pause = Pause()
    async with response_to(EVENT_STREAM_HEAD, pause, chunk(EVENTS[0]), LAST_CHUNK) as (response, _):
        assert type(response.content) is aiohttp.StreamReader
        assert response.connection is not None
        assert isinstance(response.connection.protocol, UpstreamProtocol), BROKEN
        receiver = attached(response, Recorder())
        assert receiver.upstream is response.connection.protocol
        pause.go()
        assert await receiver.until_over() == "ended"
        assert receiver.chunks == [EVENTS[0]]


async def test_http_chunks_of_one_read_come_joined_in_the_call_that_read_them_and_not_through_the_stream_reader() -> None:
    pause = Pause()
    async with response_to(EVENT_STREAM_HEAD, pause, b"".join(map(chunk, EVENTS)), Silence()) as (response, _):
        receiver = attached(response, Recorder())
        assert receiver.upstream is not None
        receiver.upstream.data_received(b"".join(map(chunk, EVENTS)))  # as the transport calls it: no turn of the loop between
        assert receiver.chunks == [b"".join(EVENTS)]
        pause.go()
        await receiver.until(lambda: len(receiver.chunks) == 2)
        assert receiver.chunks == [b"".join(EVENTS)] * 2
        assert (response.content.total_bytes, response.content._buffer) == (0, type(response.content._buffer)())


async def test_http_chunk_that_comes_in_pieces_is_handed_off_piece_by_piece() -> None:
    wire = chunk(b"data: 1\n\n")
    async with response_to(EVENT_STREAM_HEAD, Silence()) as (response, _):
        receiver = attached(response, Recorder())
        assert receiver.upstream is not None
        for at in range(len(wire)):
            receiver.upstream.data_received(wire[at : at + 1])
        assert receiver.chunks == [b"%c" % byte for byte in b"data: 1\n\n"]


BODY = b"".join(EVENTS)
WHOLE = {
    "chunked": EVENT_STREAM_HEAD + b"".join(map(chunk, EVENTS)) + LAST_CHUNK,
    "length": LENGTH_HEAD % len(BODY) + BODY,
}


@pytest.mark.parametrize("framing", WHOLE)
async def test_body_that_came_whole_with_its_head_is_received_and_ended_at_once(framing: str) -> None:
    async with response_to(WHOLE[framing]) as (response, _):
        receiver = attached(response, Recorder())
        assert (receiver.body, receiver.ends) == (BODY, ["ended"])


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
async def test_body_that_comes_after_its_head_is_received_to_its_end(framing: str) -> None:
    pause = Pause()
    scripts: dict[str, list[Step]] = {
        "chunked": [EVENT_STREAM_HEAD, pause, *map(chunk, EVENTS), LAST_CHUNK],
        "length": [LENGTH_HEAD % len(BODY), pause, *EVENTS],
        "close": [CLOSE_HEAD, pause, *EVENTS, Disconnect()],
    }
    async with response_to(*scripts[framing]) as (response, _):
        receiver = attached(response, Recorder())
        pause.go()
        assert await receiver.until_over() == "ended"
        assert receiver.body == BODY


async def test_empty_body_is_ended() -> None:
    pause = Pause()
    async with response_to(EVENT_STREAM_HEAD, pause, LAST_CHUNK) as (response, _):
        receiver = attached(response, Recorder())
        pause.go()
        assert await receiver.until_over() == "ended"
        assert receiver.chunks == []


LOSSES: dict[str, list[Step]] = {
    "between chunks": [EVENT_STREAM_HEAD, chunk(EVENTS[0])],
    "in a chunk": [EVENT_STREAM_HEAD, b"64\r\n" + EVENTS[0]],
    "before the last chunk's end": [EVENT_STREAM_HEAD, chunk(EVENTS[0]) + b"0\r\n"],
    "short of its length": [LENGTH_HEAD % 100, EVENTS[0]],
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("place", LOSSES)
async def test_connection_that_ends_before_its_body_is_lost_once(place: str, reset: bool) -> None:
    begin, end = Pause(), Pause()
    head, *rest = LOSSES[place]
    async with response_to(head, begin, *rest, end, Disconnect(reset)) as (response, _):
        receiver = attached(response, Recorder())
        begin.go()
        await receiver.until(lambda: receiver.body == EVENTS[0])
        end.go()
        assert await receiver.until_over() == "lost"
        assert receiver.body == EVENTS[0]


async def test_reset_loses_a_body_that_only_the_connection_delimits() -> None:
    pause = Pause()
    async with response_to(CLOSE_HEAD, EVENTS[0], pause, Disconnect(reset=True)) as (response, _):
        receiver = attached(response, Recorder())
        await receiver.until(lambda: receiver.body == EVENTS[0])
        pause.go()
        assert await receiver.until_over() == "lost"


async def test_connection_that_ends_after_a_complete_body_is_told_as_nothing_but_its_end() -> None:
    first, second = Pause(), Pause()
    async with response_to(EVENT_STREAM_HEAD, first, chunk(BODY) + LAST_CHUNK, second, Disconnect(reset=True)) as (response, _):
        receiver = attached(response, Recorder())
        first.go()
        assert await receiver.until_over() == "ended"
        second.go()
        await settle()
        assert receiver.ends == ["ended"]


async def test_connection_is_used_again_after_a_body_that_ended() -> None:
    begin = [Pause(), Pause()]
    scripts: list[list[Step]] = [
        [EVENT_STREAM_HEAD, pause, chunk(b"data: %d\n\n" % number) + LAST_CHUNK] for number, pause in enumerate(begin)
    ]
    async with (
        ScriptedUpstream(*scripts) as upstream,
        open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
        asyncio.timeout(2 * GUARD_SECONDS),
    ):
        protocols = []
        for number, pause in enumerate(begin):
            async with session.get(upstream.url) as response:
                receiver = attached(response, Recorder())
                protocols.append(receiver.upstream)
                pause.go()
                assert await receiver.until_over() == "ended"
                assert receiver.body == b"data: %d\n\n" % number
        assert protocols[0] is protocols[1]
        assert not upstream.requests[0].left.is_set()


async def test_pause_stops_the_upstream_and_resume_goes_on_without_loss() -> None:
    count, block = 2000, b"data: " + b"x" * 16_376 + b"\n\n"  # 32 MiB: more than the kernel keeps between the two
    async with response_to(EVENT_STREAM_HEAD, Flood(block, count), LAST_CHUNK) as (response, upstream):
        receiver = attached(response, Recorder(pause_after=1))
        await receiver.until(lambda: receiver.paused)
        chunks = len(receiver.chunks)
        sent = -1
        while sent != upstream.sent_bytes:  # until nothing moves any more
            sent = upstream.sent_bytes
            await asyncio.sleep(0.1)
        assert sent < count * len(block) / 2
        assert len(receiver.chunks) == chunks
        receiver.resume()
        assert await receiver.until_over() == "ended"
        assert receiver.body == block * count


async def overflowed(response: aiohttp.ClientResponse) -> None:
    """Wait until the stream reader has more than its limit, so that aiohttp has stopped reading."""
    connection = response.connection
    assert connection is not None
    assert connection.protocol is not None
    async with asyncio.timeout(GUARD_SECONDS):
        while not connection.protocol._reading_paused:
            await asyncio.sleep(0.01)


MANY = [b"data: %07d %s\n\n" % (number, b"." * 1000) for number in range(8000)]  # 8 MB
LARGE = b"".join(MANY)
LARGE_SCRIPTS: dict[str, list[Step]] = {
    "chunked": [EVENT_STREAM_HEAD + chunk(LARGE) + LAST_CHUNK],
    "small chunks": [EVENT_STREAM_HEAD + b"".join(map(chunk, MANY)) + LAST_CHUNK],
    "length": [LENGTH_HEAD % len(LARGE) + LARGE],
    "close": [CLOSE_HEAD + LARGE, Disconnect()],
}


@pytest.mark.parametrize("framing", LARGE_SCRIPTS)
async def test_body_that_overflowed_the_stream_reader_before_it_was_attached_loses_nothing(framing: str) -> None:
    async with response_to(*LARGE_SCRIPTS[framing]) as (response, _):
        await overflowed(response)
        receiver = attached(response, Recorder())
        assert await receiver.until_over() == "ended"
        assert receiver.body == LARGE


@pytest.mark.parametrize("framing", LARGE_SCRIPTS)
async def test_receiver_that_pauses_while_it_is_attached_to_an_overflowed_body_stays_paused(framing: str) -> None:
    async with response_to(*LARGE_SCRIPTS[framing]) as (response, _):
        await overflowed(response)
        receiver = attached(response, Recorder(pause_after=1))
        assert receiver.paused
        received = len(receiver.body)
        await settle()
        assert len(receiver.body) == received < len(LARGE)
        receiver.resume()
        assert await receiver.until_over() == "ended"
        assert receiver.body == LARGE


def read(protocol: UpstreamProtocol, data: bytes) -> None:
    """Deliver `data` as the event loop does."""
    assert protocol.transport is not None
    reads = protocol.transport.get_protocol()
    assert isinstance(reads, asyncio.BufferedProtocol)
    buffer = reads.get_buffer(-1)
    buffer[: len(data)] = data
    reads.buffer_updated(len(data))


async def test_flat_out_upstream_gives_up_its_turn_after_a_large_read() -> None:
    async with response_to(EVENT_STREAM_HEAD, Silence()) as (response, _):
        receiver = attached(response, Recorder())
        protocol = receiver.upstream
        assert protocol is not None
        assert protocol.transport is not None
        read(protocol, b"20000\r\n".ljust(READ_BYTES, b"x"))
        assert not protocol.transport.is_reading()
        await settle()
        assert protocol.transport.is_reading()
        receiver.pause()
        read(protocol, bytes(READ_BYTES))
        await settle()
        assert not protocol.transport.is_reading()


def test_many_flat_out_connections_share_a_turn_of_the_loop() -> None:
    buffer = ReadBuffer()
    shares = [buffer.share]
    for joining in (1, 7, 24, 32, 36, 1_000_000):
        buffer.count(joining)
        shares.append(buffer.share)
    kib = 1024
    assert shares == [64 * kib, 64 * kib, 64 * kib, 64 * kib, 32 * kib, 20_971, 16 * kib]


async def test_reads_are_bounded_on_the_loop_that_the_gateway_runs_on() -> None:
    def follow() -> list[int]:
        async def largest() -> list[int]:
            async with response_to(EVENT_STREAM_HEAD, Flood(b"x" * 500_000, count=8), LAST_CHUNK) as (response, _):
                receiver = attached(response, Recorder())
                assert await receiver.until_over() == "ended"
                return [len(chunk) for chunk in receiver.chunks[1:]]

        return uvloop.run(largest())

    assert max(await asyncio.to_thread(follow)) <= READ_BYTES


async def test_connection_is_flat_out_while_it_fills_the_offered_memory() -> None:
    async with response_to(EVENT_STREAM_HEAD, Silence()) as (response, _):
        protocol = attached(response, Recorder()).upstream
        assert protocol is not None
        flat_out = []
        for data in (b"20000\r\n".ljust(READ_BYTES, b"x"), bytes(READ_BYTES), b"x"):
            read(protocol, data)
            flat_out.append(protocol.flat_out)
        assert flat_out == [True, True, False]
        read(protocol, bytes(READ_BYTES - 20_000))
        read(protocol, bytes(10))
        response.close()
        await settle()
        assert not protocol.flat_out


async def test_detached_receiver_gets_nothing_more() -> None:
    async with response_to(EVENT_STREAM_HEAD, Silence()) as (response, upstream):
        receiver = attached(response, Recorder())
        protocol = receiver.upstream
        assert protocol is not None
        assert protocol.transport is not None
        protocol.data_received(chunk(EVENTS[0]))
        protocol.detach()
        assert not protocol.transport.is_reading()
        protocol.data_received(chunk(EVENTS[1]))
        response.close()
        async with asyncio.timeout(GUARD_SECONDS):
            await upstream.requests[0].left.wait()
        assert (receiver.chunks, receiver.ends) == ([EVENTS[0]], [])


async def test_data_from_before_a_lost_connection_is_received_after_a_later_attach() -> None:
    async with response_to(EVENT_STREAM_HEAD + chunk(EVENTS[0]), Disconnect()) as (response, _):
        async with asyncio.timeout(GUARD_SECONDS):
            while response.content.exception() is None:
                await asyncio.sleep(0.001)
        receiver = attached(response, Recorder())
        assert (receiver.body, receiver.ends) == (EVENTS[0], ["lost"])


async def test_response_of_another_client_is_refused() -> None:
    async with (
        ScriptedUpstream([EVENT_STREAM_HEAD, Silence()]) as upstream,
        aiohttp.ClientSession() as session,
        asyncio.timeout(GUARD_SECONDS),
        session.get(upstream.url) as response,
    ):
        receiver = Recorder()
        assert not attach(response, receiver)
        assert (receiver.chunks, receiver.ends, receiver.upstream) == ([], [], None)


async def test_reset_before_attaching_is_no_end_for_a_body_that_only_the_connection_delimits() -> None:
    pause = Pause()
    async with response_to(CLOSE_HEAD + EVENTS[0], pause, Disconnect(reset=True)) as (response, _):
        pause.go()
        async with asyncio.timeout(GUARD_SECONDS):
            while not response.content.is_eof() and response.content.exception() is None:
                await asyncio.sleep(0.001)
        receiver = attached(response, Recorder())
        assert receiver.body == EVENTS[0]
        assert receiver.ends == ["lost"]


async def test_connection_reads_again_after_a_relay_that_was_paused_when_its_body_ended_while_it_was_attached() -> None:
    size = 530_000
    async with (
        connected() as downstream,
        ScriptedUpstream([LENGTH_HEAD % size, b"x" * size], [LENGTH_HEAD % 5, b"hello"]) as upstream,
        open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
        asyncio.timeout(GUARD_SECONDS),
    ):
        downstream.transport.set_write_buffer_limits(1000)
        async with session.get(upstream.url) as response:
            await overflowed(response)
            relay = Relay(downstream.transport, TimerWheel(0.1))
            downstream.written_by(relay)
            attached(response, relay)
            await relay.ended()
        async with session.get(upstream.url) as response:
            assert await response.content.read() == b"hello"
