"""The embedded event log of a process that is killed during group commits, again and again."""

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from producer.log.check import LogAudit
from producer.log.event_log import Stored
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE
from tests.producer.event_log_contract import read_all
from tests.producer.event_log_publisher import BATCH

PUBLISHER = Path(__file__).with_name("event_log_publisher.py")
KILLS = 5


async def publish_and_kill(directory: Path, sync: str, keep: int, acknowledgements: int) -> list[tuple[int, int]]:
    """Return the first and last offset of each append that was acknowledged before the process was killed."""
    process = await asyncio.create_subprocess_exec(sys.executable, PUBLISHER, directory, sync, str(keep), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(240):
            lines = [await process.stdout.readline() for _ in range(acknowledgements)]
    finally:
        process.kill()
        lines += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
    return [(int(first), int(last)) for first, last in (line.split() for line in lines if line.endswith(b"\n"))]


def said(event: Stored) -> list[str]:
    """Return the task, the number of the append and the part of it that an event was created for."""
    return event.block.decode().partition("data: ")[2].split()


def assert_whole(events: Sequence[Stored]) -> None:
    """Assert that the events are whole appends, one after the other."""
    position = 0
    while position < len(events):
        task, number, _ = said(events[position])
        size = int(number) % BATCH + 1
        assert [said(event) for event in events[position : position + size]] == [[task, number, str(part)] for part in range(size)]
        position += size


@pytest.mark.parametrize("sync", ["always", "interval"])
async def test_every_acknowledged_append_survives_and_none_is_partial(tmp_path: Path, sync: str) -> None:
    drawn = random.Random(3)
    acknowledged: list[tuple[int, int]] = []
    for _ in range(KILLS):
        acknowledged += await publish_and_kill(tmp_path, sync, 0, drawn.randrange(1, 1500))
        async with await SqliteEventLog.open(tmp_path) as log:
            events = await read_all(log)
            assert [event.offset for event in events] == list(range(1, log.last + 1))
    assert len({first for first, _ in acknowledged}) == len(acknowledged)
    assert max(last for _, last in acknowledged) <= log.last
    assert_whole(events)
    for first, last in acknowledged:
        assert [said(event)[2] for event in events[first - 1 : last]] == [str(part) for part in range(last - first + 1)]
    assert [problem for problem in LogAudit(tmp_path / FILE).check() if problem] == []


async def test_log_that_is_constantly_trimmed_survives_kills(tmp_path: Path) -> None:
    drawn = random.Random(4)
    for _ in range(KILLS):
        acknowledged = await publish_and_kill(tmp_path, "always", 50, drawn.randrange(100, 1500))
        async with await SqliteEventLog.open(tmp_path) as log:
            events = await read_all(log)
            newest = max(last for _, last in acknowledged)
            gone = (await log.read(0, log.last)).gone_through
            assert newest <= log.last
            assert [event.offset for event in events] == list(range(gone + 1, log.last + 1))
            assert len(events) >= 50
        assert [problem for problem in LogAudit(tmp_path / FILE).check() if problem] == []
