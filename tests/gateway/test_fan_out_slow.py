"""Slow subscribers: they catch up or are disconnected, and other subscribers do not wait for them."""

import asyncio
import random
import re

import pytest

from gateway.access.budget import Budget
from gateway.streams.cohort import MOST_MEMBERS
from gateway.streams.history import READ_BYTES, Limits
from gateway.streams.relay import LEFT
from gateway.streams.subscriber import BEHIND
from tests.gateway.scripted_transport import HIGH_WATER_BYTES, Audience, append_all, blocks_of, transport_of
from tests.kit.waiting import settle, until


async def test_full_transport_takes_its_subscriber_out_and_the_others_go_on() -> None:
    audience = Audience()
    slow, stuck = audience.join(takes=0)
    _, fast = audience.join()
    blocks = blocks_of(300, 1000)
    for block in blocks:
        audience.fan_out.append(block)
        await settle(3)
    assert fast.body == b"".join(blocks)
    assert slow.paused
    assert HIGH_WATER_BYTES < len(stuck.body) <= HIGH_WATER_BYTES + 1000
    assert stuck.body == fast.body[: len(stuck.body)]
    stuck.drain()
    await until(lambda: slow.cohort is not None)
    assert stuck.body == fast.body
    audience.fan_out.append(b"live\n\n")
    await settle()
    assert stuck.writes[-1] == fast.writes[-1] == b"live\n\n"


async def test_subscriber_that_drains_slowly_gets_every_block_once() -> None:
    audience = Audience()
    slow, transport = audience.join(takes=0)
    blocks = blocks_of(1000, 1000)
    random_drain = random.Random(7)
    for block in blocks:
        audience.fan_out.append(block)
        if random_drain.random() < 0.05:
            transport.drain(random_drain.randrange(100_000))
        await asyncio.sleep(0)
        assert transport.unsent <= HIGH_WATER_BYTES + READ_BYTES
    transport.drain()
    await until(lambda: slow.cohort is not None)
    assert transport.body == b"".join(blocks)
    assert (slow.blocks_out, slow.bytes_out) == (1000, len(transport.body))


async def test_subscriber_that_pauses_while_catching_up_joins_no_cohort() -> None:
    audience = Audience()
    whole = append_all(audience.fan_out, blocks_of(200, 1000))
    await settle()
    slow, transport = audience.join(0, takes=0)
    await settle(50)
    assert slow.paused
    assert slow.cohort is None
    assert len(transport.body) < len(whole)
    transport.drain()
    await until(lambda: slow.cohort is not None)
    assert transport.body == whole


async def test_paused_subscriber_that_joins_begins_when_it_drains() -> None:
    audience = Audience()
    subscriber = audience.subscriber()
    subscriber.paused = True
    audience.fan_out.join(subscriber)
    append_all(audience.fan_out, [b"1\n\n"])
    await settle()
    assert transport_of(subscriber).writes == []
    transport_of(subscriber).drain()
    await settle()
    assert transport_of(subscriber).body == b"1\n\n"


async def test_subscriber_behind_the_history_is_disconnected_with_a_retry_time() -> None:
    audience = Audience(Limits(blocks=100, bytes=1 << 30, age_seconds=1e9))
    slow, stuck = audience.join(takes=0, takes_retry=True)
    fast, transport = audience.join()
    blocks = blocks_of(300, 1000)
    for block in blocks:
        audience.fan_out.append(block)
        await settle(3)
    assert slow.verdict == BEHIND
    assert stuck.body.startswith(b"".join(blocks[:66]))
    assert stuck.writes[-1].startswith(b"retry: ")
    assert stuck.body[: -len(stuck.writes[-1])] == b"".join(blocks)[: len(stuck.body) - len(stuck.writes[-1])]
    assert slow not in audience.fan_out.subscribers
    assert not fast.verdict
    assert transport.body == b"".join(blocks)


async def test_subscriber_before_the_oldest_kept_block_is_disconnected() -> None:
    audience = Audience(Limits(blocks=2, bytes=1 << 30, age_seconds=1e9))
    append_all(audience.fan_out, blocks_of(5))
    await settle()
    late, transport = audience.join(2)
    assert late.verdict == BEHIND
    assert re.fullmatch(rb"retry: \d+\n", transport.body)
    last, _ = audience.join(3)
    assert not last.verdict


async def test_leaving_members_make_room_for_others() -> None:
    audience = Audience()
    joined = [audience.join() for _ in range(MOST_MEMBERS)]
    for subscriber, _ in joined[: MOST_MEMBERS // 2]:
        subscriber.end(LEFT)
    for _ in range(MOST_MEMBERS // 2):
        audience.join()
    assert {subscriber.cohort for subscriber in audience.fan_out.subscribers} == {joined[-1][0].cohort}


async def test_paused_subscriber_gets_no_heartbeat() -> None:
    audience = Audience(heartbeat_ticks=2)
    _, listening = audience.join()
    slow, transport = audience.join()
    slow.pause()
    await until(lambda: len(listening.writes) >= 3)
    assert transport.writes == []
    slow.resume()
    await until(lambda: transport.writes)
    assert slow.heartbeats >= 1


async def has_room(audience: Audience, *, only_for_subscribers: bool = False) -> bool:
    """Whether a block may be read at once."""
    room = asyncio.ensure_future(audience.fan_out.room(only_for_subscribers=only_for_subscribers))
    await asyncio.sleep(0)
    if room.done():
        return True
    room.cancel()
    await asyncio.wait((room,))
    return False


async def test_there_is_room_without_subscribers_unless_reading_is_for_them_alone() -> None:
    audience = Audience()
    append_all(audience.fan_out, blocks_of(1000, 1000))
    assert await has_room(audience)
    assert not await has_room(audience, only_for_subscribers=True)


async def test_there_is_no_room_when_much_has_come_in_one_turn_until_it_has_left() -> None:
    audience = Audience()
    _, transport = audience.join()
    append_all(audience.fan_out, blocks_of(300, 1000))
    room = asyncio.ensure_future(audience.fan_out.room())
    await asyncio.sleep(0)
    assert not room.done()
    await until(room.done)
    assert 0 < len(transport.body) < 300_000
    await until(lambda: len(transport.body) == 300_000)


async def test_slow_ones_take_no_room_from_a_fast_one() -> None:
    audience = Audience()
    _, fast = audience.join()
    for _ in range(20):
        audience.join(takes=0)
    for block in blocks_of(2000, 1000):
        audience.fan_out.append(block)
        async with asyncio.timeout(120):
            await audience.fan_out.room()
    await until(lambda: len(fast.body) == 2_000_000)


async def test_when_all_are_slow_reading_goes_as_fast_as_the_fastest_takes() -> None:
    audience = Audience()
    slow, transport = audience.join(takes=0)
    blocks = blocks_of(2000, 1000)

    async def read_upstream() -> None:
        for block in blocks:
            audience.fan_out.append(block)
            await audience.fan_out.room()

    reading = asyncio.ensure_future(read_upstream())
    while not reading.done():
        await settle(30)
        unsent = audience.fan_out.history.end * 1000 - len(transport.body)
        assert unsent <= 256 * 1024 + 1000
        transport.drain(takes=0)
    await reading
    transport.drain()
    await until(lambda: slow.cohort is not None)
    assert transport.body == b"".join(blocks)
    assert not slow.verdict


async def test_reading_waits_for_stalled_subscribers_only_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.streams.fan_out._STALLED_SECONDS", 0.05)
    audience = Audience(Limits(blocks=100, bytes=1 << 30, age_seconds=1e9))
    stalled, _ = audience.join(takes=0)
    async with asyncio.timeout(120):
        for block in blocks_of(400, 5000):
            audience.fan_out.append(block)
            await audience.fan_out.room()
            await asyncio.sleep(0)
    assert stalled.verdict == BEHIND


async def test_reading_for_stalled_subscribers_alone_waits_until_they_leave() -> None:
    audience = Audience()
    stalled, _ = audience.join(takes=0)
    append_all(audience.fan_out, blocks_of(1000, 1000))
    await settle(50)
    assert stalled.paused
    assert not await has_room(audience, only_for_subscribers=True)
    room = asyncio.ensure_future(audience.fan_out.room(only_for_subscribers=True))
    await settle()
    assert not room.done()
    other, _ = audience.join(audience.fan_out.history.end)
    await until(room.done)
    assert not other.verdict


async def test_subscriber_before_dropped_blocks_is_disconnected() -> None:
    memory = Budget(500_000, 500_000)
    large, growing = Audience(memory=memory), Audience(memory=memory)
    append_all(large.fan_out, blocks_of(400, 1000))
    await settle()
    slow, _ = large.join(0, takes=0)
    live, _ = large.join()
    await until(lambda: slow.paused)
    for block in blocks_of(300, 1000):
        growing.fan_out.append(block)
        await asyncio.sleep(0)
    await settle()
    assert large.fan_out.history.first > 0
    assert slow.verdict == BEHIND
    assert not live.verdict
    assert memory.amount <= 500_000


async def test_unsent_bytes_count_for_their_client_until_it_drains_or_leaves() -> None:
    audience = Audience()
    (_, one), (other, _) = audience.join(takes=0, owner="one"), audience.join(takes=0, owner="other")
    append_all(audience.fan_out, blocks_of(1, 100_000))
    await settle()
    assert (audience.memory.of("one"), audience.memory.of("other")) == (0, 0), "a transport may hold a little"
    one.drain(0)
    await settle()
    append_all(audience.fan_out, blocks_of(1, 1_000_000))
    await settle()
    assert 800_000 < audience.memory.of("one") < 1_000_000
    assert audience.memory.of("other") == 0, "it gets no more until it has drained"
    one.drain()
    assert audience.memory.of("one") == 0
    (third, _) = audience.join(1, takes=0, owner="third")
    await settle()
    assert audience.memory.of("third") > 0
    third.end(LEFT)
    other.end(LEFT)
    assert audience.memory.of("third") == 0


async def test_members_of_a_cohort_have_the_same_bytes_which_count_about_once() -> None:
    audience = Audience()
    for number in range(100):
        audience.join(takes=0, owner=f"client {number}")
    append_all(audience.fan_out, blocks_of(1, 1_000_000))
    await settle()
    unsent = audience.memory.amount - audience.fan_out.history.cost
    assert 1_000_000 < unsent < 6_000_000


async def test_client_that_holds_the_most_is_cut_off_beyond_the_limit() -> None:
    memory = Budget(4_200_000, 4_200_000)
    audiences = [Audience(memory=memory) for _ in range(3)]
    heavy = [audience.join(takes=0, owner="heavy") for audience in audiences]
    light, transport = Audience(memory=memory).join(takes=0, owner="light")
    assert light.fan_out is not None
    first, second, third = (audience.fan_out for audience in audiences)
    for fan_out in (first, second, light.fan_out, third):
        append_all(fan_out, blocks_of(1, 1_100_000))
        await settle()
        fan_out.clear("")
    assert [subscriber.verdict for subscriber, _ in heavy].count(BEHIND) >= 1
    assert any(transport.closing for _, transport in heavy)
    assert (light.verdict, transport.closing) == ("", False)
    assert memory.amount <= 4_200_000
