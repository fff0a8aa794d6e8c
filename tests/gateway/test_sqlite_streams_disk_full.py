"""The embedded store of kept streams on a device that fills up, a real one."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, CUT, EXPIRED, StoreError
from tests.conftest import DEVICE_BYTES
from tests.gateway.sqlite_stream_checks import assert_clean
from tests.gateway.stream_store_contract import NOW, block, expire_all, head, keep, load
from tests.kit.waiting import GUARD_SECONDS

FULL = "no room left on the device; free some, or lower retain_seconds"


def fill(device: Path, leave: int = 0) -> None:
    """Use all space but `leave` bytes, as others on the device do."""
    state = os.statvfs(device)
    with (device / "others").open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, (device / "others").stat().st_size + state.f_bavail * state.f_frsize - leave))


async def append_until_full(store: SqliteStreamStore, id: str, part: bytes) -> int:
    """Return the number of stored parts."""
    taken = 0
    while True:
        try:
            await store.append(id, part)
            taken += 1
        except StoreError:
            break
    with pytest.raises(StoreError, match=FULL):
        await store.append(id, part)
    return taken


@pytest.mark.parametrize("leave", [0, 5000, 100_000, 400_000])
async def test_full_device_refuses_appends_while_loads_go_on_and_takes_them_again_when_there_is_room(device: Path, leave: int) -> None:
    part = os.urandom(10_000)
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        await keep(store, head("kept", key="k"), part)
        await store.create(head("runs"))
        fill(device, leave)
        taken = await append_until_full(store, "runs", part)
        with pytest.raises(StoreError, match=FULL):
            await store.create(head("new"))
        assert (await load(store, "runs")).blocks == part * taken
        assert (await load(store, "kept")).blocks == part
        assert await store.find_key("/sse", b"", "k") == "kept"

        (device / "others").unlink()
        await store.append("runs", part)
        await store.append("runs", block("last"))
        await store.finish("runs", COMPLETE, "", NOW + 100)
        assert (await load(store, "runs")).blocks == part * (taken + 1) + block("last")
        await keep(store, head("new"), part)
    assert_clean(device / "store")


async def test_end_of_a_stream_is_taken_when_there_is_room_for_nothing_else(device: Path) -> None:
    directory = device / "store"
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(directory, group_seconds=0) as store:
        for id in ("first", "second"):
            await store.create(head(id))
        taken = await append_until_full(store, "first", block("x" * 10_000))
        assert taken * 10_000 > DEVICE_BYTES // 4
        await store.finish("first", CUT, "the device is full", NOW + 100)
        await store.finish("second", CUT, "the device is full", NOW + 100)
    async with await SqliteStreamStore.open(directory) as store:
        assert len((await load(store, "first")).blocks) == taken * len(block("x" * 10_000))
        assert (await load(store, "second")).reason == "the device is full"
    assert_clean(directory)


async def test_store_that_filled_its_device_has_room_again_when_streams_have_expired(device: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        part = os.urandom(50_000)
        await asyncio.gather(*(keep(store, head(f"s{number}"), part, until=NOW) for number in range(20)))
        await store.create(head("last"))
        taken = await append_until_full(store, "last", part)
        await store.finish("last", COMPLETE, "", NOW)
        assert taken * 50_000 > DEVICE_BYTES // 4
        await expire_all(store, NOW)
        assert [(await load(store, id)).state for id in ("s0", "last")] == [EXPIRED, EXPIRED]
        await store.create(head("new"))
        for _ in range(taken):
            while True:
                try:
                    await store.append("new", part)
                    break
                except StoreError:
                    await store.expire(NOW)  # gives more back
        assert (await load(store, "new")).blocks == part * taken
    assert_clean(device / "store")


async def test_append_that_is_too_large_takes_none_of_its_stream_behind_it_and_none_of_others(device: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        for id in ("large", "small"):
            await store.create(head(id))
        parts = [("large", block(1)), ("small", block(2)), ("large", bytes(9_000_000)), ("small", block(3)), ("large", block(4))]
        outcomes = await asyncio.gather(*(store.append(id, part) for id, part in parts), return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "NoneType", "StoreError", "NoneType", "StoreError"]
        assert (await load(store, "large")).blocks == block(1)
        assert (await load(store, "small")).blocks == block(2) + block(3)


async def test_directory_on_a_full_device_is_refused_in_words_and_opens_when_there_is_room(device: Path) -> None:
    fill(device)
    with pytest.raises(StoreError, match=FULL):
        await SqliteStreamStore.open(device / "store")
    (device / "others").unlink()
    async with await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        await keep(store, head("s1"), block(1))
    fill(device)
    with pytest.raises(StoreError, match=FULL):
        await SqliteStreamStore.open(device / "store")
    (device / "others").unlink()
    fill(device, 500_000)
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        assert (await load(store, "s1")).blocks == block(1)


async def test_streams_expire_on_a_device_without_a_byte_left(device: Path) -> None:
    """What they need is taken from the write-ahead log."""
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        for until in (NOW, NOW + 1):
            await asyncio.gather(*(keep(store, head(f"{until} {number}"), os.urandom(50_000), until=until) for number in range(20)))
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(device / "store", group_seconds=0) as store:
        assert await store.expire(NOW) == 20
        fill(device)
        assert await store.expire(NOW + 1) == 20
        assert (await load(store, f"{NOW + 1} 7")).state == EXPIRED
    (device / "others").unlink()
    assert_clean(device / "store")
