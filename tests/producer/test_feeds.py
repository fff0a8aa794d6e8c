import asyncio
from contextlib import ExitStack

import pytest

from producer.log.event_log import LogError
from producer.log.runs import Piece
from producer.topics.cursor import Cursor, GapBlock, Start, start_after_id
from producer.topics.feeds import Feed, Feeds
from producer.topics.names import Patterns
from tests.producer.scripted_log import ScriptedLog

FROM_START = Start(0, "")


@pytest.fixture
def log() -> ScriptedLog:
    return ScriptedLog()


@pytest.fixture
def feeds(log: ScriptedLog) -> Feeds:
    return Feeds(log)


def patterns(*texts: str) -> Patterns:
    return Patterns.parse(texts)


async def take_all(cursor: Cursor) -> list[int]:
    """Return the offsets of all events that there are now; there must be no gap."""
    offsets: list[int] = []
    while (found := await cursor.advance()) is not None:
        assert isinstance(found, Piece), found
        offsets += [int(line[len(b"id: epoch-") :]) for line in found.body.splitlines() if line.startswith(b"id:")]
        assert (offsets[-1], len(found.body.split(b"\n\n")) - 1) == (found.last, found.events)
    return offsets


async def take_gap(cursor: Cursor) -> bytes:
    found = await cursor.advance()
    assert isinstance(found, GapBlock), found
    return found.body


def waiting(feed: Feed) -> "asyncio.Task[bool]":
    return asyncio.create_task(feed.wait(20))


async def test_subscribers_of_one_topic_share_each_block_and_others_are_not_woken(log: ScriptedLog, feeds: Feeds) -> None:
    with feeds.subscribe(patterns("a")) as one, feeds.subscribe(patterns("b")) as other, ExitStack() as others:
        for _ in range(1999):
            assert others.enter_context(feeds.subscribe(patterns("a"))) is one
        cursors = [Cursor(one, log.epoch, Start(0, "now")) for _ in range(2000)]
        waiters = [waiting(one) for _ in range(2000)] + [waiting(other)]
        await asyncio.sleep(0)
        [block] = log.publish("a")
        assert await asyncio.gather(*waiters[:-1]) == [True] * 2000
        pieces = [await cursor.advance() for cursor in cursors]
        assert {id(piece.body) for piece in pieces if isinstance(piece, Piece)} == {id(block)}
        assert (feeds.subscribers("a"), feeds.counts.wakes) == (2000, 2000)
        assert not waiters[-1].done()
        waiters[-1].cancel()
    assert log.reads == []


async def test_feed_is_shared_by_equal_patterns_and_closed_with_its_last_subscriber(feeds: Feeds) -> None:
    with feeds.subscribe(patterns("b", "a.*")) as one:
        with feeds.subscribe(patterns("a.%2A", "b")) as other:
            assert one is other
            assert len(feeds) == 1
        assert len(feeds) == 1
    assert len(feeds) == 0


async def test_event_reaches_every_matching_feed_and_no_other(log: ScriptedLog, feeds: Feeds) -> None:
    asked = [("a.b",), ("a.*",), ("a.>",), (">",), ("*",), ("a.c",), ("x", "a.b"), ("x", "*.b")]
    expected = [[1], [1, 2], [1, 2, 4], [1, 2, 3, 4], [3], [2], [1], [1]]
    found = []
    for texts in asked:
        with feeds.subscribe(patterns(*texts)) as feed:
            cursor = Cursor(feed, log.epoch, Start(log.last, "now"))
            log.publish("a.b", "a.c", "y", "a.b.c")
            found.append([offset - log.last + 4 for offset in await take_all(cursor)])
    assert found == expected


async def test_cursor_moves_from_the_log_to_new_events_without_loss_or_repeat(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish("a", "b", "a")
    with feeds.subscribe(patterns("*")) as feed:
        cursor = Cursor(feed, log.epoch, FROM_START)
        assert await take_all(cursor) == [1, 2, 3]
        log.publish("a", "new")
        assert await take_all(cursor) == [4, 5]
        assert await take_all(Cursor(feed, log.epoch, FROM_START)) == [1, 2, 3, 4, 5]
    assert [read[:2] for read in log.reads] == [(0, 3)]  # the events that were read are now in memory, for later subscribers


async def test_topics_that_are_new_while_a_feed_is_open_are_read_too(log: ScriptedLog, feeds: Feeds) -> None:
    with feeds.subscribe(patterns("a.*")) as feed:
        slow = Cursor(feed, log.epoch, FROM_START)
        feed.limit_ring(1)
        for name in ("a.x", "b.x", "a.y", "a.z"):
            log.publish(name, size=2000)
            feed.limit_ring(1)
        feed.wake()
        assert feed.start == 3  # the ring has only the newest
        assert await take_all(slow) == [1, 3, 4]
        assert log.reads[0][2] == {"a.x", "a.y", "a.z"}


async def test_concurrent_reads_of_one_offset_are_shared(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*["a"] * 50)
    log.held = asyncio.Event()
    with feeds.subscribe(patterns("a")) as feed:
        cursors = [Cursor(feed, log.epoch, Start(number % 3 + 5, "x")) for number in range(2000)]
        tasks = [asyncio.create_task(cursor.advance()) for cursor in [Cursor(feed, log.epoch, FROM_START), *cursors]]
        await asyncio.sleep(0)
        tasks[0].cancel()  # a cancelled subscriber must not cancel the read of the others
        await asyncio.sleep(0)
        log.held.set()
        pieces = await asyncio.gather(*tasks[1:])
    assert len(log.reads) == 1
    assert len({id(piece) for piece in pieces}) == 3


async def test_read_from_far_away_is_not_waited_for(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*["a"] * 5000)
    log.held = asyncio.Event()
    with feeds.subscribe(patterns("a")) as feed:
        far = asyncio.create_task(Cursor(feed, log.epoch, FROM_START).advance())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        near = asyncio.create_task(Cursor(feed, log.epoch, Start(4000, "x")).advance())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [read[0] for read in log.reads] == [0, 4000]
        log.held.set()
        await asyncio.gather(far, near)


async def test_failed_read_fails_for_all_waiters_and_the_next_one_retries(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish("a")
    log.failing, log.held = True, asyncio.Event()
    with feeds.subscribe(patterns("a")) as feed:
        tasks = [asyncio.create_task(Cursor(feed, log.epoch, FROM_START).advance()) for _ in range(3)]
        await asyncio.sleep(0)
        log.held.set()
        assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [LogError] * 3
        log.failing = False
        assert await take_all(Cursor(feed, log.epoch, FROM_START)) == [1]


async def test_wait_times_out_and_leaves_nothing(feeds: Feeds) -> None:
    with feeds.subscribe(patterns("a")) as feed:
        assert not await feed.wait(0.01)
        called = waiting(feed)
        await asyncio.sleep(0)
        feeds.wake_all()
        assert await called


async def test_memory_of_a_feed_is_bounded_and_a_slow_cursor_reads_the_log(log: ScriptedLog, feeds: Feeds) -> None:
    with feeds.subscribe(patterns("a")) as feed:
        slow = Cursor(feed, log.epoch, FROM_START)
        for _ in range(60):
            log.publish(*["a"] * 10, size=4000)
        assert 300 < feed.start < 600
        assert await take_all(slow) == list(range(1, 601))


async def test_event_lost_before_delivery_is_a_gap_and_the_rest_follows(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*"abab")
    log.lose(1, 2)
    with feeds.subscribe(patterns("*")) as feed:
        cursor = Cursor(feed, log.epoch, start_after_id(log, "epoch-1"))
        body = b'id: epoch-2\nevent: gap\ndata: {"asked": "epoch-1", "first_retained": "epoch-3", "reason": "not-retained"}\n\n'
        assert await take_gap(cursor) == body
        assert await take_all(cursor) == [3, 4]
        assert await take_all(Cursor(feed, log.epoch, start_after_id(log, "epoch-2"))) == [3, 4]
        assert await take_all(Cursor(feed, log.epoch, FROM_START)) == [3, 4]


async def test_gap_is_not_reported_for_other_topics_or_delivered_events(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*"abab")
    log.lose(1, 2)
    with feeds.subscribe(patterns("a")) as feed:
        assert await take_all(Cursor(feed, log.epoch, start_after_id(log, "epoch-1"))) == [3]


async def test_gap_has_the_offset_up_to_which_events_may_be_missing_and_is_reported_once(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*["b"] * 2500, "a", "b")
    log.lose(2501)
    with feeds.subscribe(patterns("*")) as feed:
        cursor = Cursor(feed, log.epoch, start_after_id(log, "epoch-1"))
        assert b'"first_retained": "epoch-2", "reason": "not-retained", "gone_through": "epoch-2501"}' in await take_gap(cursor)
        assert await take_all(cursor) == [*range(2, 2501), 2502]


async def test_gap_has_no_first_event_when_all_are_lost(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*"aab")
    log.lose(1, 2)
    with feeds.subscribe(patterns("a")) as feed:
        body = await take_gap(cursor := Cursor(feed, log.epoch, start_after_id(log, "epoch-1")))
        assert body.startswith(b'id: epoch-3\nevent: gap\ndata: {"asked": "epoch-1", "first_retained": null, ')
        assert await take_all(cursor) == []
        log.publish("a")
        assert await take_all(cursor) == [4]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("other-1", "unknown-epoch"),
        ("epoch", "malformed-id"),
        ("1", "malformed-id"),
        ("epoch-01", "malformed-id"),
        ("epoch-9", "beyond-end"),
    ],
)
@pytest.mark.parametrize("published", [0, 2])
async def test_foreign_id_is_a_gap_followed_by_all_events(log: ScriptedLog, feeds: Feeds, asked: str, reason: str, published: int) -> None:
    log.publish(*"a" * published)
    with feeds.subscribe(patterns("a")) as feed:
        cursor = Cursor(feed, log.epoch, start_after_id(log, asked))
        first = '"epoch-1"' if published else "null"
        expected = f'id: epoch-0\nevent: gap\ndata: {{"asked": "{asked}", "first_retained": {first}, "reason": "{reason}"}}\n\n'
        assert await take_gap(cursor) == expected.encode()
        assert len(await take_all(cursor)) == published


async def test_cursor_that_retention_overtakes_gets_a_gap(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish(*["a"] * 3000)
    with feeds.subscribe(patterns("a")) as feed:
        cursor = Cursor(feed, log.epoch, FROM_START)
        seen = 0
        while seen < 2000:
            found = await cursor.advance()
            assert isinstance(found, Piece)
            seen = found.last
        log.lose(*range(1, 2501))
        assert b'"asked": "epoch-2000", "first_retained": "epoch-2501"' in await take_gap(cursor)
        assert await take_all(cursor) == list(range(2501, 3001))


async def test_dropped_topic_leaves_memory_and_is_a_gap_only_for_subscribers_behind_it(log: ScriptedLog, feeds: Feeds) -> None:
    with feeds.subscribe(patterns("a", "b")) as feed:
        ahead, behind = Cursor(feed, log.epoch, Start(0, "now")), Cursor(feed, log.epoch, Start(0, "now"))
        log.publish("a", "b")
        assert await take_all(ahead) == [1, 2]
        log.lose(1)
        feeds.forget("a")
        assert b'"first_retained": "epoch-2"' in await take_gap(behind)
        assert await take_all(behind) == [2]
        log.publish("b")
        assert await take_all(ahead) == [3]


async def test_read_that_a_drop_overtook_is_not_kept_in_memory(log: ScriptedLog, feeds: Feeds) -> None:
    log.publish("a")
    log.held = asyncio.Event()
    with feeds.subscribe(patterns("a")) as feed:
        task = asyncio.create_task(Cursor(feed, log.epoch, FROM_START).advance())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        feeds.forget("a")
        log.held.set()
        assert isinstance(await task, Piece)
        assert feed.start == 1
        assert feed.piece(1) is None


@pytest.mark.parametrize("upto", [0, 1, 2, 3])
async def test_cursor_with_an_end_stops_there_despite_new_events(log: ScriptedLog, feeds: Feeds, upto: int) -> None:
    log.publish(*"a" * upto)
    with feeds.subscribe(patterns("a")) as feed:
        cursors = [Cursor(feed, log.epoch, FROM_START, upto=upto) for _ in range(2)]
        assert await take_all(cursors[0]) == list(range(1, upto + 1))
        log.publish("a", "a")
        assert await take_all(cursors[1]) == list(range(1, upto + 1))
        assert all(cursor.ended for cursor in cursors)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
async def test_cursor_with_a_limit_stops_after_that_number_of_events(log: ScriptedLog, feeds: Feeds, limit: int) -> None:
    log.publish("a", "a")
    with feeds.subscribe(patterns("a")) as feed:
        cursor = Cursor(feed, log.epoch, FROM_START, limit=limit)
        log.publish("a", "a")
        assert await take_all(cursor) == list(range(1, limit + 1))
        assert cursor.ended
