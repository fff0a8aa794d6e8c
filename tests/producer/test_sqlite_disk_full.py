"""The embedded event log on a real device that fills up."""

import asyncio
import os
from pathlib import Path

import pytest

from producer.log.check import LogAudit
from producer.log.event_log import LogFull
from producer.log.retention import Retention
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE
from tests.conftest import DEVICE_BYTES
from tests.producer.event_log_contract import blocks, read_all


def fill(device: Path, leave: int = 0) -> None:
    """Take all space but `leave` bytes, as other programs on the device do."""
    state = os.statvfs(device)
    with (device / "others").open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, (device / "others").stat().st_size + state.f_bavail * state.f_frsize - leave))


def assert_clean(directory: Path) -> None:
    assert [problem for problem in LogAudit(directory / FILE).check() if problem] == []


async def append_until_full(log: SqliteEventLog, *, size: int = 10_000) -> int:
    appended = 0
    while True:
        try:
            await log.append("a", blocks("x" * size))
        except LogFull:
            return appended
        appended += 1


@pytest.mark.parametrize("leave", [0, 5000, 100_000, 400_000])
async def test_full_device_refuses_appends_while_readers_continue_and_recovers_with_space(device: Path, leave: int) -> None:
    async with asyncio.timeout(120), await SqliteEventLog.open(device / "log") as log:
        seen: list[int] = []
        log.watch(lambda events: seen.extend(event.offset for event in events))
        for number in range(20):
            await log.append("a", blocks(str(number) + "x" * 5000))
        fill(device, leave)
        appended = await append_until_full(log)
        assert len(await read_all(log)) == 20 + appended
        with pytest.raises(LogFull, match="free some, or lower the retention"):
            await log.append("a", blocks("y" * 500_000))
        assert await log.get(1) is not None

        (device / "others").unlink()
        done = await log.append("a", blocks("room"))
        assert done.first == 21 + appended
        assert [event.offset for event in await read_all(log)] == seen == list(range(1, done.last + 1))
    assert_clean(device / "log")


async def test_log_that_filled_its_device_has_space_again_after_a_drop(device: Path) -> None:
    async with asyncio.timeout(120), await SqliteEventLog.open(device / "log", upkeep_seconds=0.01) as log:
        appended = await append_until_full(log)
        assert appended * 10_000 > DEVICE_BYTES // 4
        assert await log.drop("a") == appended
        while True:
            try:
                await log.append("b", blocks("x" * 10_000))
                break
            except LogFull:
                await asyncio.sleep(0.01)
        assert [event.topic for event in await read_all(log)] == ["b"]
    assert_clean(device / "log")


async def test_retention_frees_space_on_a_full_device(device: Path) -> None:
    directory = device / "log"
    async with asyncio.timeout(120), await SqliteEventLog.open(directory) as log:
        appended = await append_until_full(log)
    async with asyncio.timeout(120), await SqliteEventLog.open(directory, retention=Retention(max_events=100), upkeep_seconds=0.01) as log:
        while True:
            try:
                await log.append("b", blocks("x" * 10_000))
                break
            except LogFull:
                await asyncio.sleep(0.01)
        assert log.last == appended + 1
    assert_clean(directory)


async def test_append_that_is_too_large_does_not_fail_the_small_ones_of_its_group(device: Path) -> None:
    async with asyncio.timeout(120), await SqliteEventLog.open(device / "log") as log:
        large = log.append("a", blocks("x" * 9_000_000))
        small = [log.append("a", blocks("x")) for _ in range(10)]
        done = await asyncio.gather(log.append("a", blocks("first")), large, *small, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in done] == ["Appended", "LogFull", *["Appended"] * 10]
        assert log.last == 11


async def test_interval_log_closes_on_a_device_without_a_byte_left(device: Path) -> None:
    log = await SqliteEventLog.open(device / "log", sync="interval")
    async with asyncio.timeout(120):
        await log.append("a", blocks("x" * 3000))
        fill(device)
        await append_until_full(log)
        await log.close()
        (device / "others").unlink()
        async with await SqliteEventLog.open(device / "log") as log:
            assert [event.offset for event in await read_all(log)] == [1]
    assert_clean(device / "log")
