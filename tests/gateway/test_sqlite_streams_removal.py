"""The embedded store of kept streams gives back what expired streams took, in small steps, and does not remember without bound."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.modes.resumable import sqlite_space
from gateway.modes.resumable.sqlite_file import FILE
from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, EXPIRED
from tests.gateway.sqlite_stream_checks import assert_clean
from tests.gateway.stream_store_contract import DAY_SECONDS, NOW, block, expire_all, head, keep, load
from tests.kit.waiting import GUARD_SECONDS


async def fill(store: SqliteStreamStore, streams: int, *, until: float, name: str = "s") -> None:
    """Store streams of 50 KB, all at once."""
    part = os.urandom(5000)
    await asyncio.gather(*(keep(store, head(f"{name}{number}", key="k"), *[part] * 10, until=until) for number in range(streams)))


def pages(directory: Path) -> tuple[int, int]:
    """Return the number of pages in the file, and of unused ones."""
    with closing(sqlite3.connect(directory / FILE)) as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0], connection.execute("PRAGMA freelist_count").fetchone()[0]


async def test_file_returns_the_space_of_expired_streams(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await fill(store, 800, until=NOW)
        await keep(store, head("stays"), block(1), until=NOW + 100)
        before, _ = pages(tmp_path)
        assert before * 4096 > 40_000_000
        assert await expire_all(store, NOW) == 800
        while pages(tmp_path)[0] > before // 2:
            assert await store.expire(NOW) == 0
        assert (await load(store, "stays")).blocks == block(1)
    assert (tmp_path / FILE).stat().st_size <= before // 2 * 4096
    assert_clean(tmp_path)


async def test_room_of_a_few_expired_streams_is_used_again(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await fill(store, 100, until=NOW, name="0-")
        before, _ = pages(tmp_path)
        for turn in range(1, 6):
            assert await expire_all(store, NOW) == 100
            await fill(store, 100, until=NOW, name=f"{turn}-")
        assert pages(tmp_path)[0] < before * 1.2
    assert_clean(tmp_path)


async def test_one_step_removes_a_bounded_number_of_streams_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_space, "STEP_STREAMS", 7)
    monkeypatch.setattr(sqlite_space, "STEP_BYTES", 100_000)
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        for number in range(20):
            await keep(store, head(f"small{number}"), block(number), until=NOW - 1)
        await fill(store, 5, until=NOW)
        steps = []
        while step := await store.expire(NOW):
            steps.append(step)
        assert steps == [7, 7, 7, 2, 2]  # 20 small ones and a large one, then two large ones at a time
        assert await store.expire(NOW + DAY_SECONDS) == 7


async def test_oldest_streams_without_blocks_are_forgotten_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_space, "MOST_TOMBSTONES", 10)
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        for number in range(25):
            await keep(store, head(f"s{number}"), block(number), until=NOW + number)
        await expire_all(store, NOW + 100)
        known = [number for number in range(25) if await store.look_up(f"s{number}") is not None]
        assert known == list(range(15, 25))
        assert {(await load(store, f"s{number}")).state for number in known} == {EXPIRED}
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await keep(store, head("one more"), block(1), until=NOW + 200)
        await expire_all(store, NOW + 200)
        assert await store.look_up("s15") is None
        assert (await load(store, "s16")).state == EXPIRED
    assert_clean(tmp_path)


async def test_streams_are_loaded_while_others_expire(tmp_path: Path) -> None:
    """A load sees a stream with all its blocks or expired, never in between."""
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await fill(store, 300, until=NOW)
        expiring = asyncio.create_task(expire_all(store, NOW))
        seen = set()
        while not expiring.done():
            for number in range(0, 300, 30):
                found = await load(store, f"s{number}")
                seen.add((found.state, len(found.blocks)))
        assert await expiring == 300
        assert seen <= {(COMPLETE, 50_000), (EXPIRED, 0)}


async def test_long_readers_do_not_make_the_write_ahead_log_grow_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.modes.resumable.sqlite_file.LARGEST_WAL_BYTES", 1_000_000)
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        store._writer.file.connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()  # as when a reader is there at each of them
        for number in range(100):
            await keep(store, head(f"s{number}"), os.urandom(50_000))
            assert (tmp_path / f"{FILE}-wal").stat().st_size < 1_500_000
