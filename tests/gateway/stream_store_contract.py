"""What every store of kept streams must do, whatever it keeps them in: subclass `StreamStoreContract` and give it a store to open."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

import pytest

from gateway.modes.resumable.store import (
    COMPLETE,
    CUT,
    EXPIRED,
    ORPHANED,
    RUNNING,
    STOPPED,
    TOO_LARGE,
    StoredStream,
    StoreError,
    StreamHead,
    StreamStore,
)
from tests.kit.waiting import GUARD_SECONDS

DAY_SECONDS = 86_400.0
OPENED_AT = 1_700_000_000.25
"""When all streams of the tests are opened."""
RETAIN_SECONDS = 300.0
"""How long what was cut by a stop is kept, and `NOW` is when the store is opened."""
NOW = OPENED_AT + 1000

OpenStore = Callable[[], AbstractAsyncContextManager[StreamStore]]
"""Opens the store of one test, the same each time, at `NOW` with `RETAIN_SECONDS`; closes it at the end."""


def head(
    id: str,
    *,
    route: str = "/sse",
    credentials: bytes = b"",
    key: str = "",
    fields: Sequence[tuple[str, str]] = (),
    owner: str = "",
    name: str = "",
) -> StreamHead:
    return StreamHead(id, route, "POST", f"{route}?q=1", credentials, b"digest", key, [*fields], OPENED_AT, owner, name)


def block(text: object) -> bytes:
    return f"data: {text}\n\n".encode()


async def keep(store: StreamStore, given: StreamHead, *parts: bytes, state: str = COMPLETE, until: float = NOW + 100) -> None:
    """Store a stream from its beginning to its end."""
    await store.create(given)
    for part in parts:
        await store.append(given.id, part)
    await store.finish(given.id, state, "", until)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream as a store gives it, with its blocks."""

    head: StreamHead
    state: str
    reason: str
    blocks: bytes
    ended_at: float


async def find(store: StreamStore, id: str) -> Loaded | None:
    """Load a stream, None if it is not known."""
    parts: list[bytes] = []
    found = await store.load(id, parts.append)
    if found is None:
        return None
    assert found.state == EXPIRED or found.size == sum(map(len, parts))
    return Loaded(found.head, found.state, found.reason, b"".join(parts), found.ended_at)


async def load(store: StreamStore, id: str) -> Loaded:
    found = await find(store, id)
    assert found is not None, f"stream {id!r} is not known"
    return found


async def expire_all(store: StreamStore, now: float) -> int:
    total = 0
    while dealt_with := await store.expire(now):
        total += dealt_with
    return total


class StreamStoreContract:
    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> AsyncIterator[StreamStore]:
        async with asyncio.timeout(GUARD_SECONDS), open_store() as store:
            yield store

    async def test_stream_is_loaded_as_far_as_it_has_come(self, store: StreamStore) -> None:
        given = head("s1", fields=[("Content-Type", "text/event-stream"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
        await store.create(given)
        assert await load(store, "s1") == Loaded(given, RUNNING, "", b"", 0)
        await store.append("s1", block(1))
        await store.append("s1", block(2) + block(3))
        assert await load(store, "s1") == Loaded(given, RUNNING, "", block(1) + block(2) + block(3), 0)
        await store.finish("s1", COMPLETE, "", NOW + 100)
        ended = await load(store, "s1")
        assert ended == Loaded(given, COMPLETE, "", block(1) + block(2) + block(3), ended.ended_at)
        assert ended.ended_at > 0

    async def test_stream_is_looked_up_without_its_blocks(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            await store.create(head("s1", owner="ab12"))
            await store.append("s1", block(1) + block(2))
            runs = await store.look_up("s1")
            assert runs is not None
            assert (runs.head, runs.state, runs.ended_at) == (head("s1", owner="ab12"), RUNNING, 0)
            await store.finish("s1", CUT, "upstream: reset", NOW + 100, block_count=2, cost=300)
            ended = await store.look_up("s1")
            size = len(block(1) + block(2))
            assert ended == StoredStream(head("s1", owner="ab12"), CUT, "upstream: reset", NOW, size, 2, 300)
            await store.create(head("killed"))
            await store.append("killed", block(1))
        async with open_store() as store:
            assert await store.look_up("s1") == ended
            assert await store.load("s1", bytes) == ended
            killed = await store.look_up("killed")
            assert killed is not None
            assert (killed.state, killed.size, killed.block_count, killed.cost) == (CUT, len(block(1)), None, None)

    async def test_large_stream_is_loaded_in_parts_of_whole_blocks(self, store: StreamStore) -> None:
        appended = [block(number) * 1000 for number in range(100)]
        await keep(store, head("s1"), *appended, b"data: unfinished")
        parts: list[bytes] = []
        await store.load("s1", parts.append)
        assert b"".join(parts) == b"".join(appended) + b"data: unfinished"
        assert max(map(len, parts)) < len(b"".join(parts)) / 3
        assert all(part.endswith(b"\n\n") for part in parts[:-1])

    async def test_reason_that_is_long_is_cut_short(self, store: StreamStore) -> None:
        await store.create(head("s1"))
        await store.finish("s1", CUT, "x" * 100_000, NOW + 100)
        found = await load(store, "s1")
        assert found.reason
        assert len(found.reason) < 1000

    @pytest.mark.parametrize("state", [COMPLETE, CUT, STOPPED, ORPHANED, TOO_LARGE])
    async def test_end_and_its_reason_outlive_the_process(self, open_store: OpenStore, state: str) -> None:
        async with open_store() as store:
            await store.create(head("s1"))
            await store.append("s1", block(1))
            await store.finish("s1", state, "upstream: connection reset", NOW + 100)
            before = await load(store, "s1")
        async with open_store() as store:
            assert await load(store, "s1") == before
            assert (before.state, before.reason, before.blocks) == (state, "upstream: connection reset", block(1))

    async def test_stream_that_ran_when_the_store_was_left_is_cut_with_all_its_blocks_and_kept_for_a_while(
        self, open_store: OpenStore
    ) -> None:
        async with open_store() as store:
            await store.create(head("s1"))
            await store.append("s1", block(1))
            await store.create(head("s2"))
            await keep(store, head("s3"), block(3))
        async with open_store() as store:
            cut = await load(store, "s1")
            assert (cut.state, cut.reason, cut.blocks) == (CUT, "the gateway stopped while it ran", block(1))
            assert cut.ended_at > 0
            assert ((await load(store, "s2")).state, (await load(store, "s2")).blocks) == (CUT, b"")
            assert (await load(store, "s3")).state == COMPLETE
            for late in (store.append("s1", block(2)), store.finish("s1", COMPLETE, "", NOW + 100)):
                with pytest.raises(StoreError, match="'s1' does not run"):
                    await late
            assert await expire_all(store, NOW + RETAIN_SECONDS - 1) == 1  # s3
            assert await load(store, "s1") == cut
            assert await expire_all(store, NOW + RETAIN_SECONDS + 60) == 2
            assert (await load(store, "s1")).state == EXPIRED

    async def test_blocks_are_given_back_byte_for_byte(self, open_store: OpenStore) -> None:
        parts = [
            b"\xef\xbb\xbfdata: \xff\xfe\x00\r\n\r\n",
            b"\x00",
            os.urandom(100_000),
            b"",
            b":\n\r",
            *(os.urandom(size) for size in range(300)),
        ]
        async with open_store() as store:
            await keep(store, head("s1"), *parts)
            assert (await load(store, "s1")).blocks == b"".join(parts)
        async with open_store() as store:
            assert (await load(store, "s1")).blocks == b"".join(parts)

    async def test_heads_are_given_back_as_they_were(self, store: StreamStore) -> None:
        odd = "caf\u00e9 \U0001f600 \udc80\udcff \x00 '\"\\"  # header fields that are not UTF-8 have surrogates
        given = StreamHead("s1", "/ü", "QUERY", odd, b"\x00\xff", b"", odd, [(odd, odd), ("X", "")], OPENED_AT)
        await store.create(given)
        await store.finish("s1", CUT, odd, NOW + 100)
        found = await load(store, "s1")
        assert (found.head, found.reason) == (given, odd)
        assert await store.find_key("/ü", b"\x00\xff", odd) == "s1"

    async def test_stream_of_many_megabytes_is_kept_whole(self, store: StreamStore) -> None:
        part = os.urandom(1 << 20) * 9
        await keep(store, head("s1"), part, part)
        assert (await load(store, "s1")).blocks == part + part

    async def test_streams_at_once_do_not_meet(self, store: StreamStore) -> None:
        async def run(number: int) -> None:
            await keep(store, head(f"s{number}"), *(block(f"{number} {part}") for part in range(number % 7)))

        await asyncio.gather(*(run(number) for number in range(200)))
        for number in range(200):
            assert (await load(store, f"s{number}")).blocks == b"".join(block(f"{number} {part}") for part in range(number % 7))

    async def test_calls_that_are_not_waited_for_are_done_in_their_order(self, store: StreamStore) -> None:
        given = head("s1")
        calls = [store.create(given), *(store.append("s1", block(number)) for number in range(50)), store.finish("s1", COMPLETE, "", NOW)]
        await asyncio.gather(*calls)
        found = await load(store, "s1")
        assert (found.state, found.blocks) == (COMPLETE, b"".join(map(block, range(50))))

    async def test_appending_to_many_streams_returns_a_result_for_each(self, store: StreamStore) -> None:
        await store.create(head("s1"))
        await keep(store, head("ended"), block(1))
        parts = [("s1", block(2)), ("ended", block(2)), ("s1", block(3)), ("none", b"")]
        outcomes, *_ = await asyncio.gather(store.append_all([("s1", block(1))]), store.append_all(parts), store.append("s1", block(4)))
        assert outcomes == [None]
        assert [type(outcome) for outcome in await store.append_all(parts)] == [type(None), StoreError, type(None), StoreError]
        assert (await load(store, "s1")).blocks == b"".join(map(block, (1, 2, 3, 4, 2, 3)))

    async def test_cancelled_call_is_done_all_the_same(self, store: StreamStore) -> None:
        await store.create(head("s1"))
        appending = asyncio.ensure_future(store.append("s1", block(1)))
        await asyncio.sleep(0)
        appending.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # unless it was quick
            await appending
        await store.append("s1", block(2))
        assert (await load(store, "s1")).blocks == block(1) + block(2)

    async def test_unknown_stream_is_none(self, store: StreamStore) -> None:
        for id in ("", "nothing", secrets.token_hex(16), "\udc80", "\x00", "é", "' OR 1=1 --"):
            assert await store.look_up(id) is None
            assert await find(store, id) is None

    async def test_id_is_taken_once(self, store: StreamStore) -> None:
        await keep(store, head("ended"), block(1))
        await store.create(head("runs"))
        twice = await asyncio.gather(store.create(head("new", key="one")), store.create(head("new", key="two")), return_exceptions=True)
        assert [type(outcome) for outcome in twice] == [type(None), StoreError]
        short = [store.create(head("short")), store.finish("short", COMPLETE, "", NOW), store.create(head("short"))]
        assert [type(outcome) for outcome in await asyncio.gather(*short, return_exceptions=True)] == [type(None), type(None), StoreError]
        for id in ("ended", "runs", "new", "short"):
            with pytest.raises(StoreError, match=f"there is a stream '{id}' already"):
                await store.create(head(id))
        await store.append("runs", block(2))
        assert [(await load(store, id)).blocks for id in ("ended", "runs", "new")] == [block(1), block(2), b""]
        assert (await load(store, "new")).head.key == "one"

    async def test_stream_that_does_not_run_takes_nothing(self, store: StreamStore) -> None:
        await keep(store, head("ended"), block(1))
        for id in ("ended", "unknown"):
            for late in (store.append(id, block(2)), store.finish(id, STOPPED, "", NOW)):
                with pytest.raises(StoreError, match=f"stream '{id}' does not run"):
                    await late
        assert ((await load(store, "ended")).state, (await load(store, "ended")).blocks) == (COMPLETE, block(1))

    async def test_stream_does_not_end_as_running_or_expired(self, store: StreamStore) -> None:
        await store.create(head("s1"))
        for state in (RUNNING, EXPIRED):
            with pytest.raises(ValueError, match=f"does not end as '{state}'"):
                await store.finish("s1", state, "", NOW)
        assert (await load(store, "s1")).state == RUNNING

    async def test_name_finds_the_newest_stream_of_the_same_route_and_credentials(self, open_store: OpenStore) -> None:
        odd = "a/b %2F 世 \x00"
        async with open_store() as store:
            await keep(store, head("old", name=odd), until=NOW + 500)
            await keep(store, head("newest", name=odd), until=NOW + 10)
            await store.create(head("later"))
            await store.append("later", block(1))
            await store.name("later", "n")
            await store.append("later", block(2))
            await store.create(head("credentials", credentials=b"c", name=odd))
            assert await store.find_name("/sse", b"", odd) == "newest"
            assert await store.find_name("/sse", b"c", odd) == "credentials"
            assert await store.find_name("/other", b"", odd) is None
            assert await store.find_name("/sse", b"", "") is None
            assert await store.find_key("/sse", b"", odd) is None
            with pytest.raises(StoreError, match="newest"):
                await store.name("newest", "ended")
        async with open_store() as store:
            found = await load(store, "later")
            assert (found.head.name, found.blocks) == ("n", block(1) + block(2))
            assert await store.find_name("/sse", b"", "n") == "later"
            await expire_all(store, NOW + 20)
            assert await store.find_name("/sse", b"", odd) == "old"

    async def test_key_finds_the_newest_stream_of_the_same_route_and_credentials(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            await keep(store, head("old", key="k"), until=NOW + 500)
            await keep(store, head("newest", key="k"), until=NOW + 10)
            await store.create(head("route", route="/other", key="k"))
            await store.create(head("credentials", credentials=b"c", key="k"))
            await store.create(head("none"))
            for _ in range(2):
                assert await store.find_key("/sse", b"", "k") == "newest"
            assert await store.find_key("/other", b"", "k") == "route"
            assert await store.find_key("/sse", b"c", "k") == "credentials"
            assert await store.find_key("/sse", b"", "K") is None
            assert await store.find_key("/sse", b"", "") is None
        async with open_store() as store:
            assert await store.find_key("/sse", b"", "k") == "newest"
            assert await store.find_key("/sse", b"c", "k") == "credentials"
            await expire_all(store, NOW + 20)
            assert await store.find_key("/sse", b"", "k") == "old"
            await expire_all(store, NOW + 1000)
            assert await store.find_key("/sse", b"", "k") is None

    async def test_event_finds_the_newest_stream_that_has_it_and_that_the_request_may_continue(self, open_store: OpenStore) -> None:
        def numbered(*ids: str) -> bytes:
            return b"".join(f"id: {id}\n".encode() + block(id) for id in ids)

        mine = head("asked", credentials=b"c")
        async with open_store() as store:
            await keep(store, head("old", credentials=b"c"), numbered("1", "2"), numbered("3"))
            await keep(store, head("new", credentials=b"c"), numbered("20", "2"), until=NOW + 10)
            await keep(store, head("keyed", credentials=b"c", key="k"), numbered("2"), until=NOW + 10)
            await keep(store, head("newest", credentials=b"c"), block("id: 1") + numbered("a\nid: 7"), until=NOW + 10)
            await keep(store, head("key only", key="k"), numbered("1"))
            await keep(store, head("other", credentials=b"d"), numbered("9"))
            await keep(store, replace(mine, id="body", body=b"other"), numbered("9"))
            await keep(store, replace(mine, id="method", method="PUT"), numbered("9"))
            await keep(store, replace(mine, id="target", target="/sse?q=2"), numbered("9"))
            await keep(store, head("route", route="/other", credentials=b"c"), numbered("9"))
            await store.create(head("runs", credentials=b"c"))
            await store.append("runs", numbered("8"))
        async with open_store() as store:
            expected = {"1": "old", "2": "keyed", "3": "old", "20": "new", "7": "newest", "a": None, "9": None, "0": None, "8": "runs"}
            assert {id: await store.find_event(mine, id) for id in expected} == expected
            assert await store.find_event(replace(mine, key="k"), "2") == "keyed"
            assert await store.find_event(replace(mine, key="k"), "1") == "old"
            assert await store.find_event(head("asked", key="k"), "1") == "key only"
            assert await store.find_event(head("asked", key="k"), "2") is None
            assert await store.find_event(head("asked"), "1") is None
            await expire_all(store, NOW + 20)
            assert await store.find_event(mine, "2") == "old"

    async def test_expired_stream_is_known_for_a_day_without_blocks_and_then_forgotten(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            await keep(store, head("complete", fields=[("A", "b")], credentials=b"c"), block(1), until=NOW + 10)
            await store.create(head("cut"))
            await store.finish("cut", CUT, "upstream: reset", NOW + 20)
            await store.create(head("runs"))
            assert await expire_all(store, NOW + 10 - 0.001) == 0
            assert await expire_all(store, NOW + 10) == 1
            found = await load(store, "complete")
            assert (found.state, found.reason, found.blocks, found.head.fields) == (EXPIRED, "complete", b"", [])
            assert (found.head.credentials, found.head.target) == (b"", "")
            assert (await load(store, "cut")).state == CUT
            assert await expire_all(store, NOW + 30) == 1
            assert ((await load(store, "cut")).state, (await load(store, "cut")).reason) == (EXPIRED, "cut: upstream: reset")
            assert await expire_all(store, NOW + 10 + DAY_SECONDS - 1) == 0
            assert (await load(store, "runs")).state == RUNNING
        async with open_store() as store:
            assert (await load(store, "complete")).state == EXPIRED
            assert await expire_all(store, NOW + 10 + DAY_SECONDS) == 2  # `complete` is forgotten, and `runs` was cut by the stop
            assert await store.look_up("complete") is None
            assert (await load(store, "cut")).state == EXPIRED
            assert await expire_all(store, NOW + 10 + 3 * DAY_SECONDS) == 2
            assert [await store.look_up(id) for id in ("complete", "cut", "runs")] == [None] * 3
            await keep(store, head("complete"), block(2))
            assert (await load(store, "complete")).blocks == block(2)

    async def test_expiring_goes_on_in_steps_until_nothing_is_left_while_streams_run(self, store: StreamStore) -> None:
        await asyncio.gather(*(keep(store, head(f"s{number}"), os.urandom(10_000)) for number in range(600)))
        await store.create(head("runs"))

        async def run() -> int:
            number = 0
            while not expiring.done():
                await store.append("runs", block(number))
                number += 1
            return number

        expiring = asyncio.ensure_future(expire_all(store, NOW + 100))
        appended = await run()
        assert await expiring == 600
        assert appended > 1
        assert (await load(store, "runs")).blocks == b"".join(map(block, range(appended)))
        assert {(await load(store, f"s{number}")).state for number in range(600)} == {EXPIRED}

    async def test_close_writes_pending_calls_and_refuses_later_ones(self, open_store: OpenStore) -> None:
        async with open_store() as store:
            await store.create(head("s1"))
            under_way = [asyncio.ensure_future(store.append("s1", block(number))) for number in range(20)]
            await asyncio.sleep(0)
            await asyncio.gather(store.close(), store.close())
            await asyncio.gather(*under_way)
            late = (
                store.create(head("s2")),
                store.append("s1", b""),
                store.look_up("s1"),
                store.load("s1", bytes),
                store.find_key("/sse", b"", "k"),
                store.find_event(head("s1", key="k"), "1"),
                store.expire(NOW),
            )
            for call in late:
                with pytest.raises(StoreError, match="closed"):
                    await call
        async with open_store() as store:
            assert (await load(store, "s1")).blocks == b"".join(map(block, range(20)))
