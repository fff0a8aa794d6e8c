"""One history, many subscribers: each block to each of them, in order, once, in as few writes as may be."""

import asyncio
import itertools

import pytest

from gateway.streams.cohort import MOST_MEMBERS
from gateway.streams.history import READ_BYTES, Limits
from gateway.streams.relay import COMPLETE, LEFT
from tests.gateway.scripted_transport import Audience, append_all, blocks_of
from tests.kit.waiting import settle, until


async def test_blocks_of_one_turn_of_the_event_loop_leave_in_one_write() -> None:
    audience = Audience()
    joined = [audience.join() for _ in range(3)]
    whole = append_all(audience.fan_out, blocks_of(5))
    assert all(transport.writes == [] for _, transport in joined)
    await settle()
    assert [transport.writes for _, transport in joined] == [[whole]] * 3


async def test_lone_block_leaves_in_the_next_turn() -> None:
    audience = Audience()
    _, transport = audience.join()
    await settle()
    for block in blocks_of(3):
        audience.fan_out.append(block)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.writes[-1] == block
    assert len(transport.writes) == 3


async def test_all_members_are_given_the_same_object() -> None:
    audience = Audience()
    given: list[bytes] = []
    for _ in range(3):
        subscriber = audience.subscriber()
        subscriber.write_to_transport = given.append  # type: ignore[assignment]
        audience.fan_out.join(subscriber)
    append_all(audience.fan_out, blocks_of(5))
    await settle()
    assert len(given) == 3
    assert given[0] is given[1] is given[2]


async def test_only_chunked_subscribers_get_chunks() -> None:
    audience = Audience()
    _, chunked = audience.join(chunked=True)
    _, plain = audience.join()
    append_all(audience.fan_out, [b"data: 123\n\n", b":\n\n"])
    await settle()
    assert chunked.body == b"e\r\ndata: 123\n\n:\n\n\r\n"
    assert plain.body == b"data: 123\n\n:\n\n"


async def test_new_subscriber_gets_the_blocks_after_its_cursor_and_then_live_ones() -> None:
    audience = Audience()
    blocks = blocks_of(8)
    append_all(audience.fan_out, blocks[:5])
    await settle()
    _, from_now = audience.join()
    _, from_three = audience.join(3)
    _, from_start = audience.join(0)
    append_all(audience.fan_out, blocks[5:])
    await settle()
    assert from_now.body == b"".join(blocks[5:])
    assert from_three.body == b"".join(blocks[3:])
    assert from_start.body == b"".join(blocks)


async def test_lagging_subscriber_joins_the_others_without_loss_or_repeat() -> None:
    audience = Audience()
    blocks = blocks_of(300, 1000)
    append_all(audience.fan_out, blocks[:200])
    _, live = audience.join()
    late, transport = audience.join(0)
    for block in blocks[200:]:
        audience.fan_out.append(block)
        await asyncio.sleep(0)
    await until(lambda: late.cohort is not None)
    await settle()
    assert transport.body == b"".join(blocks)
    assert live.body == b"".join(blocks[-len(live.body) // 1000 :])
    assert late.blocks_out == 300
    assert late.bytes_out == len(transport.body)


async def test_long_way_is_caught_up_in_parts_of_which_each_is_one_write() -> None:
    audience = Audience()
    whole = append_all(audience.fan_out, blocks_of(2000, 100))
    await settle()
    _, transport = audience.join(0)
    await until(lambda: len(transport.body) >= len(whole))
    assert transport.body == whole
    assert len(transport.writes) <= len(whole) / READ_BYTES + 2
    assert max(map(len, transport.writes)) <= READ_BYTES


async def test_lagging_subscribers_do_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    audience = Audience()
    append_all(audience.fan_out, blocks_of(1000, 1000))
    await settle()
    lagging = [audience.join(0) for _ in range(200)]
    monkeypatch.setattr("gateway.streams.fan_out._LAGGING_SECONDS", 0.0)  # one part a turn
    turns = 0
    while not all(len(transport.body) == 1_000_000 for _, transport in lagging):
        written = sum(len(transport.writes) for _, transport in lagging)
        await asyncio.sleep(0)
        turns += 1
        assert sum(len(transport.writes) for _, transport in lagging) <= written + 1
    assert turns >= 200 * 1_000_000 / READ_BYTES


async def test_live_block_leaves_while_many_catch_up() -> None:
    audience = Audience()
    append_all(audience.fan_out, blocks_of(2000, 1000))
    await settle()
    _, live = audience.join()
    await settle()
    lagging = [audience.join(0) for _ in range(1000)]
    await asyncio.sleep(0)
    audience.fan_out.append(b"live\n\n")
    for _ in range(3):
        await asyncio.sleep(0)
    assert live.body == b"live\n\n"
    assert any(len(transport.body) < 2_000_000 for _, transport in lagging)


async def test_subscriber_that_joins_an_empty_cohort_gets_no_earlier_blocks() -> None:
    """The old cursor of an empty cohort could even be one that the history no longer has."""
    audience = Audience(Limits(blocks=1, bytes=1 << 30, age_seconds=1e9))
    _, _ = audience.join(chunked=True)
    gone, _ = audience.join()
    await settle()
    gone.end(LEFT)
    append_all(audience.fan_out, blocks_of(5))
    await asyncio.sleep(0)  # one cohort is served and the history trimmed; the other's turn comes later
    _, transport = audience.join()
    append_all(audience.fan_out, [b"new\n\n"])
    await settle()
    assert transport.body == b"new\n\n"


async def test_queued_subscriber_that_moves_to_another_fan_out_goes_on_there() -> None:
    audience, other = Audience(), Audience()
    append_all(audience.fan_out, blocks_of(500, 1000))
    whole = append_all(other.fan_out, blocks_of(500, 1000, first=500))
    await settle()
    mover, transport = audience.join(0)
    assert mover.queued
    mover.leave_cohort()
    audience.fan_out.leave(mover)
    other.fan_out.join(mover, 0)
    await settle(50)
    assert transport.body == whole


async def test_two_thousand_five_hundred_subscribers_are_three_cohorts_each_in_a_turn_of_its_own() -> None:
    audience = Audience()
    joined = [audience.join() for _ in range(2500)]
    await settle()
    audience.fan_out.append(b"1\n\n")
    served = []
    for _ in range(6):
        await asyncio.sleep(0)
        served.append(sum(bool(transport.writes) for _, transport in joined))
    assert max(later - earlier for earlier, later in zip([0, *served], served, strict=False)) <= MOST_MEMBERS
    assert served[-1] == 2500
    blocks = blocks_of(50)
    for number, block in enumerate(blocks):
        audience.fan_out.append(block)
        if number % 5 == 0:
            await asyncio.sleep(0)
    await settle()
    assert all(transport.body == b"1\n\n" + b"".join(blocks) for _, transport in joined)


async def test_cohorts_take_turns_when_blocks_come_in_every_turn() -> None:
    audience = Audience()
    joined = [audience.join() for _ in range(2 * MOST_MEMBERS + 1)]
    await settle()
    first, middle, last = (transport for _, transport in (joined[0], joined[MOST_MEMBERS], joined[-1]))
    for block in blocks_of(90):
        audience.fan_out.append(block)
        await asyncio.sleep(0)
    assert min(len(transport.writes) for transport in (first, middle, last)) >= 29
    await settle()
    assert first.body == middle.body == last.body


async def test_oldest_subscribers_are_served_first() -> None:
    """Thousands who have just come back do not delay what others get."""
    audience = Audience()
    joined = [audience.join() for _ in range(3 * MOST_MEMBERS)]
    await settle()
    for number in range(7):
        audience.fan_out.append(b"%d\n\n" % number)
        await asyncio.sleep(0)
        assert [len(joined[place][1].writes) - number for place in (0, MOST_MEMBERS, 2 * MOST_MEMBERS)] == [1, 0, 0]
        await settle()


async def test_heartbeat_comes_when_nothing_else_does() -> None:
    audience = Audience(heartbeat_ticks=3)
    subscriber, transport = audience.join(chunked=True)
    _, plain = audience.join()
    await until(lambda: len(transport.writes) >= 2 and len(plain.writes) >= 2)
    assert set(transport.writes) == {b"3\r\n:\n\n\r\n"}
    assert set(plain.writes) == {b":\n\n"}
    assert subscriber.heartbeats == len(transport.writes)
    assert subscriber.bytes_out == 3 * len(transport.writes)
    assert subscriber.blocks_out == 0


async def test_heartbeat_does_not_come_while_blocks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    audience = Audience(heartbeat_ticks=3, tick_seconds=3600)
    wheel, elapsed = audience.wheel, itertools.count(2)
    monkeypatch.setattr(wheel, "_elapsed", lambda: next(elapsed))
    _, transport = audience.join()
    for _ in range(20):
        audience.fan_out.append(b"1\n\n")
        await settle()
        wheel._turn()
    assert b":\n\n" not in transport.writes
    for _ in range(5):
        wheel._turn()
    assert b":\n\n" in transport.writes


async def test_wheel_is_empty_when_all_have_left() -> None:
    audience = Audience(heartbeat_ticks=2)
    joined = [audience.join(chunked=chunked)[0] for chunked in (True, False, False)]
    assert "waiting=2" in repr(audience.wheel)
    for subscriber in joined:
        subscriber.end(LEFT)
    assert "waiting=0" in repr(audience.wheel)


async def test_ended_subscriber_gets_nothing_more() -> None:
    audience = Audience()
    gone, transport = audience.join()
    lagging, late = audience.join(0)
    append_all(audience.fan_out, [b"1\n\n"])
    await settle()
    gone.end(LEFT)
    lagging.end(LEFT)
    append_all(audience.fan_out, [b"2\n\n"])
    await settle()
    assert transport.body == late.body == b"1\n\n"
    assert audience.fan_out.subscribers == set()


async def test_subscriber_that_ends_while_catching_up_gets_nothing_more() -> None:
    audience = Audience()
    append_all(audience.fan_out, blocks_of(500, 1000))
    await settle()
    lagging, transport = audience.join(0)
    await asyncio.sleep(0)
    lagging.end(COMPLETE)
    before = len(transport.writes)
    await settle()
    assert len(transport.writes) == before
    assert repr(audience.fan_out).endswith("subscribers=0 lagging=0>")


async def test_at_end_returns_the_subscribers_with_every_block() -> None:
    audience = Audience()
    done, _ = audience.join()
    slow, _ = audience.join(takes=0)
    append_all(audience.fan_out, blocks_of(100, 1000))
    assert audience.fan_out.at_end() == []
    await settle()
    assert slow.paused
    assert audience.fan_out.at_end() == [done]


async def test_moved_is_called_after_each_turn_in_which_something_may_have_changed() -> None:
    calls: list[int] = []
    audience = Audience(moved=lambda: calls.append(len(audience.fan_out.at_end())))
    subscriber, _ = audience.join()
    await settle()
    assert calls == [1]
    audience.fan_out.append(b"1\n\n")
    await settle()
    assert calls == [1, 1]
    subscriber.end(LEFT)
    await settle()
    assert calls == [1, 1, 0]


async def test_block_that_is_passed_on_is_sent_in_the_same_turn_and_once_to_everybody_wherever_they_are() -> None:
    audience = Audience()
    fan_out, blocks = audience.fan_out, blocks_of(40, 10_000)
    live, transport = audience.join(0)
    await settle()
    for number, block in enumerate(blocks[:10], 1):
        fan_out.pass_on([block])
        assert transport.body == b"".join(blocks[:number])
    stalled, chunked, late = audience.join(0, takes=0), audience.join(0, chunked=True), audience.join(0)
    for block in blocks[10:]:
        fan_out.pass_on([block])
    stalled[1].drain()
    everybody = (live, stalled[0], chunked[0], late[0])
    await until(lambda: all(subscriber.cohort and subscriber.blocks_out == 40 for subscriber in everybody))
    fan_out.pass_on([b"last\n\n"])
    await until(lambda: all(subscriber.blocks_out == 41 for subscriber in everybody))
    assert [each.body for each in (transport, stalled[1], late[1])] == [b"".join(blocks) + b"last\n\n"] * 3


async def test_blocks_that_are_passed_on_together_leave_in_one_write_unless_they_are_many_bytes() -> None:
    audience = Audience()
    subscriber, transport = audience.join(0)
    await settle()
    few, many = blocks_of(3, 100), blocks_of(40, 10_000)
    before = len(transport.writes)
    audience.fan_out.pass_on(few, ["a", None, "b"])
    assert transport.writes[before:] == [b"".join(few)]
    assert [audience.fan_out.history.find(id) for id in ("a", "b")] == [1, 3]
    audience.fan_out.pass_on(many)
    await until(lambda: subscriber.blocks_out == 43)
    assert transport.body == b"".join(few + many)
    assert max(map(len, transport.writes)) < 50_000
