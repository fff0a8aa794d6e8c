"""One subscriber: what it counts, how it ends, and what it is told."""

import asyncio
import json

import pytest

from eventstream import Parser
from gateway.streams.relay import COMPLETE, CUT, LEFT
from gateway.streams.subscriber import EXPIRED, RETURN_AFTER_MS, RETURN_SPREAD_MS
from tests.gateway.scripted_transport import Audience, transport_of
from tests.kit.waiting import GUARD_SECONDS, settle, until


async def test_blocks_for_one_subscriber_alone_are_written_at_once_and_counted() -> None:
    audience = Audience()
    subscriber = audience.subscriber()
    subscriber.write(b"1\n\n2\n\n", blocks=2)
    subscriber.write(b"3\n\n")
    assert transport_of(subscriber).body == b"1\n\n2\n\n3\n\n"
    assert (subscriber.blocks_out, subscriber.bytes_out, subscriber.heartbeats) == (3, 9, 0)


async def test_chunks_are_made_where_the_response_has_them() -> None:
    subscriber = Audience().subscriber(chunked=True)
    subscriber.write(b"data: 0123456789\n\n")
    assert transport_of(subscriber).body == b"12\r\ndata: 0123456789\n\n\r\n"
    assert subscriber.bytes_out == 18
    assert subscriber.chunked


async def test_counts_go_on_through_cohorts_pauses_and_writes_of_its_own() -> None:
    audience = Audience()
    for _ in range(10):
        audience.fan_out.append(b"before\n\n")
    await settle()
    subscriber, transport = audience.join()
    for number in range(30):
        audience.fan_out.append(b"%d\n\n" % number)
        if number % 7 == 0:
            subscriber.pause()
        if number % 7 == 3:
            subscriber.resume()
        if number % 11 == 0:
            subscriber.write(b"own\n\n")
        await settle(3)
        assert subscriber.bytes_out == len(transport.body)
        assert subscriber.blocks_out == transport.body.count(b"\n\n")
    subscriber.resume()
    await settle()
    subscriber.end(LEFT)
    assert subscriber.blocks_out == 33
    assert subscriber.bytes_out == len(transport.body)


async def test_nothing_is_written_to_a_connection_that_is_closing() -> None:
    subscriber = Audience().subscriber()
    transport_of(subscriber).closing = True
    subscriber.write(b"1\n\n")
    subscriber.send_error()
    assert transport_of(subscriber).writes == []
    assert subscriber.blocks_out == 0


async def test_first_verdict_stands() -> None:
    audience = Audience()
    subscriber, transport = audience.join(takes_retry=True)
    subscriber.end(CUT, "the upstream went away")
    subscriber.end(COMPLETE)
    subscriber.lost()
    subscriber.disconnect(EXPIRED)
    assert (subscriber.verdict, subscriber.reason) == (CUT, "the upstream went away")
    assert transport.writes == []


async def test_waiting_for_the_end_returns_even_after_it() -> None:
    audience = Audience()
    subscriber, _ = audience.join()
    waiting = asyncio.ensure_future(subscriber.ended())
    await settle()
    assert not waiting.done()
    subscriber.end(COMPLETE)
    async with asyncio.timeout(GUARD_SECONDS):
        await waiting
        await subscriber.ended()


async def test_end_after_the_wait_was_cancelled_is_no_error() -> None:
    subscriber, _ = Audience().join()
    waiting = asyncio.ensure_future(subscriber.ended())
    await settle()
    waiting.cancel()
    await asyncio.wait((waiting,))
    subscriber.end(LEFT)
    assert subscriber.verdict == LEFT


async def test_lost_connection_ends_it_as_left() -> None:
    audience = Audience()
    subscriber, transport = audience.join()
    subscriber.lost()
    audience.fan_out.append(b"1\n\n")
    await settle()
    assert subscriber.verdict == LEFT
    assert transport.writes == []
    assert audience.fan_out.subscribers == set()


async def test_pause_and_resume_after_the_end_change_nothing() -> None:
    audience = Audience()
    subscriber, transport = audience.join()
    subscriber.end(COMPLETE)
    subscriber.pause()
    audience.fan_out.append(b"1\n\n")
    subscriber.resume()
    await settle()
    assert transport.writes == []


async def test_retry_is_sent_to_all_at_the_end_but_before_a_block_only_to_clients_that_accept_it() -> None:
    audience = Audience()
    taking, refusing = audience.subscriber(takes_retry=True), audience.subscriber()
    for subscriber in (taking, refusing):
        subscriber.send_retry_ahead(1234)
    assert transport_of(taking).body == b"retry: 1234\n"
    assert transport_of(refusing).body == b""
    refusing.send_retry(1234)
    assert transport_of(refusing).body == b"retry: 1234\n"


async def test_disconnected_subscribers_reconnect_spread_over_the_window() -> None:
    audience = Audience()
    times = set()
    for _ in range(200):
        subscriber, transport = audience.join(takes_retry=True)
        subscriber.disconnect(EXPIRED)
        assert subscriber.verdict == EXPIRED
        times.add(int(transport.body.removeprefix(b"retry: ")))
    assert len(times) > 150
    assert RETURN_AFTER_MS <= min(times) < RETURN_AFTER_MS + RETURN_SPREAD_MS / 10
    assert RETURN_AFTER_MS + RETURN_SPREAD_MS * 9 / 10 < max(times) <= RETURN_AFTER_MS + RETURN_SPREAD_MS


async def test_error_is_told_as_an_event_with_the_reason() -> None:
    subscriber, transport = Audience().join()
    subscriber.end(CUT, "the upstream went away")
    subscriber.send_error()
    [event] = Parser().feed(transport.body)
    assert event.type == "error"
    assert json.loads(event.data)["message"] == "Upstream lost: the upstream went away"


async def test_connection_ends_when_it_has_been_open_for_as_long_as_it_may() -> None:
    audience = Audience()
    subscriber = audience.subscriber(takes_retry=True, expires=audience.wheel.now + 5)
    audience.fan_out.join(subscriber)
    audience.fan_out.append(b"1\n\n")
    due = subscriber.slot
    await until(lambda: subscriber.verdict)
    assert subscriber.verdict == EXPIRED
    assert audience.wheel.now >= due
    assert transport_of(subscriber).writes[0] == b"1\n\n"
    assert transport_of(subscriber).writes[1].startswith(b"retry: ")
    assert "waiting=0" in repr(audience.wheel)


async def test_wheel_forgets_a_subscriber_that_ends_early() -> None:
    audience = Audience()
    subscriber = audience.subscriber(expires=audience.wheel.now + 1000)
    assert "waiting=1" in repr(audience.wheel)
    subscriber.end(LEFT)
    assert "waiting=0" in repr(audience.wheel)


@pytest.mark.parametrize("early", [1, 100])
async def test_ring_before_its_time_asks_to_be_rung_again(early: int) -> None:
    audience = Audience()
    expires = audience.wheel.now + 1000
    subscriber = audience.subscriber(expires=expires)
    assert subscriber.fire(expires - early) == expires
    assert not subscriber.verdict
    assert subscriber.fire(expires) == 0
    assert subscriber.verdict == EXPIRED
