"""The embedded store of kept streams at its limit: what gives way, whose it is, and what remains of it."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.modes.resumable.sqlite_file import FILE
from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, CUT, EXPIRED, RUNNING, StoreError, StreamEvicted
from tests.gateway.sqlite_stream_checks import assert_clean
from tests.gateway.stream_store_contract import DAY_SECONDS, NOW, expire_all, head, keep, load
from tests.kit.waiting import GUARD_SECONDS

MEGABYTE = 1024 * 1024
LIMIT = 8 * MEGABYTE
PART = os.urandom(50_000)


async def opened(directory: Path, *, most_bytes: int = LIMIT, share: float = 0.5) -> SqliteStreamStore:
    return await SqliteStreamStore.open(
        directory, group_seconds=0, clock=lambda: NOW, most_bytes=most_bytes, share_per_owner=share, retain_seconds=1000
    )


async def keep_large(store: SqliteStreamStore, id: str, owner: str, parts: int = 20) -> None:
    """Keep a stream of a megabyte."""
    await keep(store, head(id, owner=owner), *[PART] * parts, until=NOW + 1000)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


async def states(store: SqliteStreamStore, *ids: str) -> list[str]:
    return [(await load(store, id)).state for id in ids]


async def test_owner_has_at_most_its_share_and_its_oldest_streams_give_way(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        await keep_large(store, "other", "other", parts=40)
        for number in range(30):
            await keep_large(store, f"s{number}", "heavy")
            assert size_of(tmp_path) < LIMIT * 1.1
        assert (await load(store, "other")).blocks == PART * 40
        found = await states(store, *(f"s{number}" for number in range(30)))
        kept = found.count(COMPLETE)
        assert found == [EXPIRED] * (30 - kept) + [COMPLETE] * kept
        assert 2 <= kept <= LIMIT * 0.5 / MEGABYTE
        gone = await load(store, "s0")
        assert (gone.state, gone.reason) == (EXPIRED, "complete: it gave way, because the store was full")
    assert_clean(tmp_path)


async def test_heaviest_owner_s_streams_give_way_to_those_of_others(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path, share=1) as store:
        for number in range(4):
            await keep_large(store, f"heavy{number}", "heavy")
        await keep_large(store, "light", "light")
        for number in range(3):
            await keep_large(store, f"{number}", f"other {number}")
        assert await states(store, "light", "0", "1", "2") == [COMPLETE] * 4
        assert await states(store, "heavy0", "heavy3") == [EXPIRED, COMPLETE]


async def test_streams_without_an_owner_give_way_last(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path, share=1) as store:
        for number in range(4):
            await keep_large(store, f"unowned{number}", "")
        for number in range(6):
            await keep_large(store, f"s{number}", "owner")
        assert await states(store, *(f"unowned{number}" for number in range(4))) == [COMPLETE] * 4
        assert await states(store, "s0") == [EXPIRED]
        for number in range(4, 10):
            await keep_large(store, f"unowned{number}", "")
        assert await states(store, "unowned9", "unowned0") == [COMPLETE, EXPIRED]


async def test_largest_running_stream_of_the_heaviest_owner_gives_way_when_all_run(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        for id, owner in (("large", "heavy"), ("small", "heavy"), ("other", "other")):
            await store.create(head(id, owner=owner))
        await store.append("small", PART)
        await store.append("other", PART)
        for _ in range(50):
            await store.append("large", PART)
        with pytest.raises(StreamEvicted, match="'large' gave way, because the store was full"):
            await store.append("large", PART * 20)
        await store.append("small", PART)
        await store.finish("small", COMPLETE, "", NOW + 1000)
        await store.append("other", PART)
        assert [(await load(store, id)).blocks for id in ("small", "other")] == [PART * 2] * 2
        assert await states(store, "large", "other") == [EXPIRED, RUNNING]
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        assert await states(store, "large", "small", "other") == [EXPIRED, COMPLETE, CUT]
    assert_clean(tmp_path)


async def test_stream_that_gave_way_to_another_of_its_owner_fails_its_next_call_once(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        for id in ("first", "second"):
            await store.create(head(id, owner="heavy"))
        await store.append("first", PART * 40)
        for _ in range(39):
            await store.append("second", PART)
        assert await states(store, "first", "second") == [EXPIRED, RUNNING]
        calls = (store.append("first", PART), store.finish("first", COMPLETE, "", NOW))
        assert [type(each) for each in await asyncio.gather(*calls, return_exceptions=True)] == [StreamEvicted] * 2
        with pytest.raises(StoreError, match="'first' does not run there"):
            await store.append("first", PART)


async def test_many_megabytes_at_once_do_not_make_the_write_ahead_log_large(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path, share=1) as store:
        for number in range(5):
            await store.create(head(str(number), owner=str(number)))
        outcomes = await store.append_all([(str(number), PART) for number in range(5) for _ in range(20)])
        assert outcomes == [None] * 100
        assert (tmp_path / f"{FILE}-wal").stat().st_size < LIMIT / 3
        assert size_of(tmp_path) < LIMIT * 1.1
        assert [(await load(store, str(number))).blocks for number in range(5)] == [PART * 20] * 5


async def test_limit_that_was_lowered_holds_soon(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path, most_bytes=64 * MEGABYTE) as store:
        for number in range(20):
            await keep_large(store, f"s{number}", f"owner {number}")
    assert size_of(tmp_path) > 19 * MEGABYTE
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        while size_of(tmp_path) > LIMIT * 1.1:
            await store.expire(NOW)
        known = await states(store, *(f"s{number}" for number in range(20)))
        assert 3 <= known.count(COMPLETE) <= 8
    assert_clean(tmp_path)


async def test_streams_that_expire_count_no_more_for_their_owner(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        for turn in range(1, 4):
            for number in range(3):
                await keep(store, head(f"{turn} {number}", owner="heavy"), *[PART] * 20, until=NOW + turn)
            assert await states(store, *(f"{turn} {number}" for number in range(3))) == [COMPLETE] * 3
            await expire_all(store, NOW + turn)
        assert store._writer.space.owned == {}


@pytest.mark.parametrize("large", [0, 60_000])
async def test_record_of_an_expired_stream_does_not_grow_with_its_request(tmp_path: Path, large: int) -> None:
    """Its id and how it ended, whatever the client's head was."""
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path, most_bytes=256 * MEGABYTE, share=1) as store:
        fields = [("Set", "x" * large)]
        many = [head(f"{number:032x}", key=f"{number}" + "x" * large, fields=fields, owner="heavy") for number in range(500)]
        await asyncio.gather(*(keep(store, each, b"data: x\n\n", until=NOW) for each in many))
        for _ in range(2):
            await expire_all(store, NOW)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        [[pages], [unused]] = (connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "freelist_count"))
        assert connection.execute("SELECT count(*) FROM endings WHERE dropped_at IS NOT NULL").fetchone() == (500,)
    assert (pages - unused) * 4096 < 500 * 500
    async with asyncio.timeout(GUARD_SECONDS), await opened(tmp_path) as store:
        assert await states(store, f"{7:032x}") == [EXPIRED]
        assert await expire_all(store, NOW + DAY_SECONDS) == 500
