"""The embedded store of kept streams in a process that is killed in the midst of its work, again and again."""

import asyncio
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, CUT, EXPIRED
from tests.gateway.sqlite_stream_checks import assert_clean
from tests.gateway.stream_store_contract import Loaded, load
from tests.gateway.stream_store_filler import count, part

FILLER = Path(__file__).with_name("stream_store_filler.py")
KILLS = 6


@dataclass(slots=True)
class Told:
    """What the process said before it was killed."""

    parts: dict[str, int] = field(default_factory=dict)
    """By stream, how many of its parts had been taken."""
    ended: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    """Those that had ended and were over their time."""


async def fill_and_kill(directory: Path, calls: int) -> Told:
    process = await asyncio.create_subprocess_exec(sys.executable, FILLER, directory, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(240):
            lines = [await process.stdout.readline() for _ in range(calls)]
    finally:
        process.kill()
        lines += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
    told = Told()
    for line in lines:
        if line.endswith(b"\n"):
            what, id, number = line.decode().split()
            told.parts[id] = int(number) + (what == "append")
            if what == "finish":
                told.ended.add(id)
            elif what == "over":
                told.over.add(id)
    return told


def assert_whole(found: Loaded, at_least: int) -> int:
    """Its blocks are whole parts, one behind the other, and not fewer than it was said; gives how many."""
    rest, number = found.blocks, 0
    while rest:
        following = part(found.head.id, number)
        assert rest.startswith(following), f"part {number} is not whole"
        rest, number = rest[len(following) :], number + 1
    assert at_least <= number <= count(found.head.id)
    return number


async def test_every_call_that_ended_before_a_kill_is_found_and_no_part_is_torn(tmp_path: Path) -> None:
    drawn = random.Random(5)
    expected: dict[str, Loaded] = {}
    cut = 0
    for _ in range(KILLS):
        told = await fill_and_kill(tmp_path, drawn.randrange(1, 2500))
        async with asyncio.timeout(240), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
            for id, earlier in expected.items():
                assert await load(store, id) == earlier
            for id, parts in told.parts.items():
                found = await load(store, id)
                if found.state == EXPIRED:
                    assert parts == count(id)
                    assert id not in told.ended
                    continue
                number = assert_whole(found, parts)
                assert found.state == COMPLETE if id in told.ended | told.over else found.state in (COMPLETE, CUT)
                assert found.state == CUT or number == count(id)
                cut += found.state == CUT
                assert await store.find_key("/sse", b"", f"key-{id}") == id
                if found.state == CUT or id in told.ended:
                    expected[id] = found
        assert_clean(tmp_path)
    assert 0 < cut < len(expected)
