"""One body on its way to a real connection, with a timer wheel that the tests turn."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import brotli
import pytest

from eventstream import Framer, Parser
from eventstream.decoding import find_decoder
from gateway.streams.relay import COMPLETE, CUT, DRAINED, LEFT, Relay
from gateway.streams.wheel import TimerWheel
from tests.gateway.subscribing import Downstream, connected
from tests.kit.clock import TICK_SECONDS, Clock
from tests.kit.waiting import GUARD_SECONDS, settle, until

HEARTBEAT = b":\n\n"


class Upstream:
    """Notes what the relay wants of its upstream."""

    def __init__(self) -> None:
        self.wishes: list[str] = []
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.wishes.append("pause")

    def resume(self) -> None:
        self.wishes.append("resume")
        self.resumed.set()

    def detach(self) -> None:
        self.wishes.append("detach")


@pytest.fixture
async def clock() -> Clock:
    return Clock()


def open_relay(downstream: Downstream, **options: Any) -> tuple[Relay, Upstream]:
    options.setdefault("framer", Framer())
    relay = Relay(downstream.transport, TimerWheel(TICK_SECONDS), **options)
    downstream.written_by(relay)
    upstream = Upstream()
    relay.attached(upstream)
    return relay, upstream


async def test_block_leaves_in_the_call_that_brings_its_last_byte() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream)
        relay.feed(b"data: 1\n\ndata:")
        assert relay.bytes_out == 9
        relay.feed(b" 2\n")
        assert relay.bytes_out == 9
        relay.feed(b"\n")
        assert await downstream.read(18) == b"data: 1\n\ndata: 2\n\n"
        assert (relay.bytes_in, relay.bytes_out, relay.blocks_out) == (18, 18, 2)


async def test_http_chunks_are_made_where_the_response_needs_them_and_do_not_count() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, chunked=True)
        relay.feed(b"data: 1\n\ndata: 2\n\nda")
        assert await downstream.read(24) == b"12\r\ndata: 1\n\ndata: 2\n\n\r\n"
        assert (relay.bytes_in, relay.bytes_out, relay.blocks_out) == (20, 18, 2)


async def test_body_that_is_no_event_stream_passes_as_it_comes() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, framer=None)
        relay.feed(b"any")
        relay.feed(b"\x00thing")
        assert await downstream.read(9) == b"any\x00thing"
        assert (relay.bytes_in, relay.bytes_out, relay.blocks_out) == (9, 9, 0)


async def test_coded_stream_is_decoded_and_cut_at_its_blocks() -> None:
    compressor = brotli.Compressor()
    coded = [bytes(compressor.process(piece) + compressor.flush()) for piece in (b"data: 1\n\nda", b"ta: 2\n\n")]
    async with connected() as downstream:
        relay, _ = open_relay(downstream, decoder=find_decoder("br"))
        relay.feed(coded[0])
        assert await downstream.read(9) == b"data: 1\n\n"
        relay.feed(coded[1])
        assert await downstream.read(9) == b"data: 2\n\n"
        assert relay.bytes_in == sum(map(len, coded))


async def test_undecodable_stream_is_cut() -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, decoder=find_decoder("gzip"))
        relay.feed(b"not gzip")
        assert (relay.verdict, relay.bytes_out, upstream.wishes) == (CUT, 0, ["detach"])
        assert relay.reason.startswith("the body is not gzip or deflate: ")


async def test_block_over_the_limit_cuts_the_stream_after_the_blocks_before_it() -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, framer=Framer(20))
        relay.feed(b"data: 1\n\ndata: 2\n\ndata: " + b"x" * 20)
        assert await downstream.read(18) == b"data: 1\n\ndata: 2\n\n"
        assert (relay.verdict, relay.reason, relay.blocks_out) == (CUT, "event block reached 26 bytes, limit is 20", 2)
        assert upstream.wishes == ["detach"]
        relay.feed(b"\n\ndata: 3\n\n")
        assert relay.bytes_out == 18


async def test_heartbeat_comes_whenever_nothing_has_left_for_its_interval(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, heartbeat_ticks=10)
        relay.feed(b"data: 1\n\n")
        await clock.turn(9)
        assert relay.heartbeats == 0
        await clock.turn(21)
        assert await downstream.read(9 + 3 * 3) == b"data: 1\n\n" + HEARTBEAT * 3
        assert (relay.heartbeats, relay.blocks_out, relay.bytes_out) == (3, 1, 9 + 3 * 3)


async def test_heartbeat_comes_while_a_block_is_held_back_and_not_inside_it(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, heartbeat_ticks=4)
        relay.feed(b"data: 1\n")
        await clock.turn(4)
        relay.feed(b"data: 2\n")
        await clock.turn(4)
        relay.feed(b"\n")
        assert await downstream.read(relay.bytes_out) == HEARTBEAT * 2 + b"data: 1\ndata: 2\n\n"


async def test_stream_that_sends_within_its_interval_gets_no_heartbeat(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, heartbeat_ticks=10)
        for _ in range(50):
            relay.feed(b"data: 1\n\n")
            await clock.turn(9)
        assert relay.heartbeats == 0
        await clock.turn(2)
        assert relay.heartbeats == 1


async def test_silent_upstream_is_given_up_after_the_idle_time_though_heartbeats_leave(clock: Clock) -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, heartbeat_ticks=4, idle_ticks=32)
        await clock.turn(31)
        assert (relay.verdict, relay.heartbeats) == ("", 7)
        await clock.turn(2)
        assert (relay.verdict, relay.reason, upstream.wishes) == (CUT, "upstream sent nothing for 0.5 s", ["detach"])


async def test_bytes_of_an_unfinished_block_show_that_upstream_is_not_idle(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, idle_ticks=10)
        for _ in range(50):
            relay.feed(b"x")
            await clock.turn(9)
        assert (relay.verdict, relay.bytes_in) == ("", 50)
        await clock.turn(2)
        assert relay.verdict == CUT


async def stalled(downstream: Downstream, relay: Relay) -> int:
    """Feed blocks until the relay pauses, because the subscriber does not read. Return the bytes that it needs to catch up."""
    block = b"data: " + b"x" * 65_528 + b"\n\n"
    async with asyncio.timeout(GUARD_SECONDS):
        while not relay.paused:
            relay.feed(block)
            await settle()
    return relay.bytes_out


async def test_subscriber_that_does_not_read_pauses_its_upstream_until_he_has_caught_up() -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream)
        size = await stalled(downstream, relay)
        assert upstream.wishes == ["pause"]
        await downstream.read(size)
        async with asyncio.timeout(GUARD_SECONDS):
            await upstream.resumed.wait()
        assert (relay.paused, upstream.wishes) == (False, ["pause", "resume"])
        relay.feed(b"data: 1\n\n")
        assert await downstream.read(9) == b"data: 1\n\n"


async def test_paused_relay_sends_no_heartbeat_and_is_not_idle_and_both_clocks_begin_anew_when_it_goes_on(clock: Clock) -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, heartbeat_ticks=3, idle_ticks=30)
        size = await stalled(downstream, relay)
        await clock.turn(100)
        assert (relay.verdict, relay.heartbeats) == ("", 0)
        await downstream.read(size)
        async with asyncio.timeout(GUARD_SECONDS):
            await upstream.resumed.wait()
        await clock.turn(2)
        assert relay.heartbeats == 0
        await clock.turn(27)
        assert relay.verdict == ""
        assert relay.heartbeats > 0
        await clock.turn(2)
        assert relay.verdict == CUT


async def test_relay_that_ends_while_it_is_paused_does_not_resume_its_upstream() -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream)
        size = await stalled(downstream, relay)
        relay.end(DRAINED)
        await downstream.read(size)
        assert upstream.wishes == ["pause", "detach"]


ENDS: dict[str, tuple[Callable[[Relay], None], str, str]] = {
    "complete": (Relay.upstream_ended, COMPLETE, ""),
    "lost": (lambda relay: relay.upstream_lost("gone"), CUT, "gone"),
    "left": (lambda relay: relay.end(LEFT), LEFT, ""),
    "drained": (lambda relay: relay.end(DRAINED), DRAINED, ""),
}


@pytest.mark.parametrize("later", ENDS)
@pytest.mark.parametrize("first", ENDS)
async def test_first_verdict_stands(first: str, later: str) -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, heartbeat_ticks=1)
        end, verdict, reason = ENDS[first]
        end(relay)
        ENDS[later][0](relay)
        assert (relay.verdict, relay.reason) == (verdict, reason)
        assert (upstream.wishes, relay.upstream) == (["detach"], None)


async def test_nothing_leaves_after_the_end(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, heartbeat_ticks=1)
        relay.feed(b"data: 1\n\ndata: unfinished")
        relay.upstream_ended()
        relay.feed(b"\n\n")
        await clock.turn(10)
        assert (relay.bytes_out, relay.heartbeats) == (9, 0)


async def test_waiting_for_the_end_returns() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream)
        waiting = asyncio.create_task(relay.ended())
        await asyncio.sleep(0)
        assert not waiting.done()
        relay.upstream_ended()
        async with asyncio.timeout(GUARD_SECONDS):
            await waiting
            await relay.ended()  # and again, at once


async def test_subscriber_that_has_left_gets_nothing_and_costs_nothing() -> None:
    async with connected() as downstream:
        relay, upstream = open_relay(downstream)
        downstream.transport.abort()
        relay.feed(b"data: 1\n\n")
        assert (relay.bytes_out, relay.verdict, upstream.wishes) == (0, "", [])


async def test_unsent_data_is_not_counted(clock: Clock) -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream, heartbeat_ticks=2)
        relay.feed(b"data: 1\n\n")
        await clock.turn(2)
        assert (relay.blocks_out, relay.heartbeats, relay.bytes_out) == (1, 1, 9 + 3)
        downstream.transport.close()  # the gateway hears of it a moment later
        relay.feed(b"data: 2\n\n")
        await clock.turn(10)
        assert (relay.blocks_out, relay.heartbeats, relay.bytes_out) == (1, 1, 9 + 3)


async def test_error_event_is_one_json_block_with_the_reason() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream)
        relay.feed(b"data: 1\n\ndata: half")
        relay.upstream_lost("line one\nline two")
        relay.send_error()
        first, error = Parser().feed(await downstream.read(relay.bytes_out))
        assert (first.data, error.type) == ("1", "error")
        assert json.loads(error.data)["message"] == "Upstream lost: line one\nline two"


async def test_subscriber_is_told_when_to_come_back() -> None:
    async with connected() as downstream:
        relay, _ = open_relay(downstream)
        relay.feed(b"data: 1\n\ndata: half")
        relay.send_retry(1234)
        relay.end(DRAINED)
        assert await downstream.read(relay.bytes_out) == b"data: 1\n\nretry: 1234\n"


async def test_small_coded_chunk_that_becomes_much_waits_for_the_subscriber() -> None:
    block = b"data: " + b"x" * 1000 + b"\n\n"
    async with connected() as downstream:
        relay, upstream = open_relay(downstream, decoder=find_decoder("gzip"))
        relay.feed(gzip.compress(block * 20_000))
        relay.upstream_ended()
        assert relay.paused
        assert downstream.transport.get_write_buffer_size() < 2**20
        assert relay.verdict == ""
        assert upstream.wishes[-1] == "detach"
        assert await downstream.read(len(block) * 20_000) == block * 20_000
        await relay.ended()
        assert relay.verdict == COMPLETE


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
async def test_many_small_blocks_are_passed_on_in_several_turns_and_in_order(line_end: bytes) -> None:
    blocks = b"".join(b"id:%d" % number + line_end * 2 for number in range(6000))
    async with connected() as downstream:
        relay, upstream = open_relay(downstream)
        relay.feed(blocks)
        assert 0 < relay.blocks_out < 3000
        assert upstream.wishes == ["pause"]
        relay.feed(b"data: last" + line_end * 2)
        assert await downstream.read(len(blocks)) == blocks
        await until(lambda: upstream.wishes[-1] == "resume")
        relay.upstream_ended()
        assert (relay.verdict, relay.blocks_out) == (COMPLETE, 6001)


async def test_end_behind_many_small_blocks_waits_for_them() -> None:
    blocks = b"id\n\n" * 10_000
    async with connected() as downstream:
        relay, _ = open_relay(downstream)
        relay.feed(blocks)
        relay.upstream_ended()
        assert relay.verdict == ""
        await relay.ended()
        assert (relay.verdict, relay.bytes_out) == (COMPLETE, len(blocks))
