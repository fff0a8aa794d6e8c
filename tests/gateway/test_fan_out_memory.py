"""What histories hold, and that each subscriber gets all of it whatever they do."""

import asyncio
import random
import re

import pytest

from gateway.access.budget import Budget
from gateway.streams.history import Limits
from gateway.streams.relay import LEFT
from tests.gateway.scripted_transport import PLENTY, Audience, append_all, blocks_of, transport_of
from tests.kit.waiting import settle, until

FAREWELL = re.compile(rb"retry: \d+\n\Z")
"""What those get who are sent away."""


async def test_largest_history_gives_way_when_all_together_hold_too_much() -> None:
    memory = Budget(1_000_000, 1_000_000)
    large, small = Audience(memory=memory), Audience(memory=memory)
    append_all(small.fan_out, blocks_of(200, 1000))
    await settle()
    for block in blocks_of(1500, 1000):
        large.fan_out.append(block)
        await asyncio.sleep(0)
    await settle()
    assert memory.amount <= 1_000_000
    assert memory.amount == large.fan_out.history.cost + small.fan_out.history.cost
    assert small.fan_out.history.first == 0
    assert large.fan_out.history.first > 600


async def test_closed_fan_out_no_longer_counts() -> None:
    memory = Budget(1_000_000, 1_000_000)
    audience = Audience(memory=memory)
    append_all(audience.fan_out, blocks_of(100, 1000))
    await settle()
    assert memory.amount == 100_000
    audience.fan_out.close()
    assert memory.amount == audience.fan_out.history.cost == 0
    append_all(audience.fan_out, blocks_of(100, 1000))
    await settle()
    assert memory.amount == 0


async def test_age_is_kept_also_when_nothing_comes() -> None:
    audience = Audience(Limits(blocks=100, bytes=1 << 30, age_seconds=0.05))
    append_all(audience.fan_out, blocks_of(5))
    await settle()
    await asyncio.sleep(0.06)  # longer than the age
    audience.fan_out.expire()
    assert audience.fan_out.history.first == 5
    assert audience.memory.amount == 0


async def test_newcomer_gets_the_oldest_block_that_grows_too_old_before_its_turn() -> None:
    audience = Audience(Limits(blocks=100, bytes=1 << 30, age_seconds=0.05))
    whole = append_all(audience.fan_out, blocks_of(5))
    await settle()
    await asyncio.sleep(0.06)  # longer than the age
    subscriber, transport = audience.join(0)
    audience.fan_out.expire()
    await settle()
    assert (transport.body, subscriber.verdict) == (whole, "")
    audience.fan_out.expire()
    assert audience.fan_out.history.first == 5


@pytest.mark.parametrize("seed", range(8))
async def test_each_gets_each_block_once_and_in_order_whatever_they_do(seed: int) -> None:
    choose = random.Random(seed)
    audience = Audience(PLENTY if seed % 2 else Limits(blocks=300, bytes=150_000, age_seconds=1e9))
    blocks: list[bytes] = []
    begun: dict[object, tuple[int, object]] = {}
    for step in range(2000):
        action = choose.random()
        if action < 0.5:
            blocks += blocks_of(1, choose.choice([10, 200, 5000]), first=len(blocks))
            audience.fan_out.append(blocks[-1])
        elif action < 0.6:
            first, end = audience.fan_out.history.first, audience.fan_out.history.end
            cursor = choose.randint(first, end)
            subscriber, _ = audience.join(cursor, takes=choose.choice([None, 0, 100_000]), chunked=False)
            begun[subscriber] = (cursor, subscriber)
        elif action < 0.7 and audience.fan_out.subscribers:
            transport_of(choose.choice(sorted(audience.fan_out.subscribers, key=id))).drain(choose.choice([None, 0, 50_000]))
        elif action < 0.72 and audience.fan_out.subscribers:
            choose.choice(sorted(audience.fan_out.subscribers, key=id)).end(LEFT)
        elif action < 0.95:
            await asyncio.sleep(0)
        assert step < 2000
    for subscriber in list(audience.fan_out.subscribers):
        transport_of(subscriber).drain()
    await until(lambda: all(subscriber.cohort is not None for subscriber in audience.fan_out.subscribers))
    await settle()
    for subscriber, (cursor, _) in begun.items():
        body = FAREWELL.sub(b"", transport_of(subscriber).body)  # type: ignore[arg-type]
        whole = b"".join(blocks[cursor:])
        assert whole.startswith(body)
        assert body == b"".join(blocks[cursor : cursor + subscriber.blocks_out])  # type: ignore[attr-defined]
        if not subscriber.verdict:  # type: ignore[attr-defined]
            assert body == whole
