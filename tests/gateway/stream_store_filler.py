"""Fills a store of kept streams from many tasks at once, and tells on standard output of each call that has ended, until killed."""

import asyncio
import os
import secrets
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, StreamHead

TASKS = 16
EXPIRES_EVERY = 4
"""One in this number of streams has expired when it ends."""


def count(id: str) -> int:
    """Return the number of parts of a complete stream."""
    return 5 + int(id[0], 16)


def part(id: str, number: int) -> bytes:
    """Return a few blocks, of any size up to some pages."""
    return f"id: {id}-{number}\ndata: {'x' * (number * 997 % 9000)}\n\n".encode() * (1 + number % 3)


async def main(directory: Path) -> None:
    store = await SqliteStreamStore.open(directory, group_seconds=0.002)

    async def fill(task: int) -> None:
        turn = 0
        while True:
            id, turn = secrets.token_hex(16), turn + 1
            await store.create(StreamHead(id, "/sse", "POST", "/sse", b"", b"", f"key-{id}", [], time.time()))
            for number in range(count(id)):
                await store.append(id, part(id, number))
                os.write(1, f"append {id} {number}\n".encode())
            over = (turn + task) % EXPIRES_EVERY == 0
            await store.finish(id, COMPLETE, "", 0 if over else time.time() + 3600)
            os.write(1, f"{'over' if over else 'finish'} {id} {count(id)}\n".encode())

    async def expire() -> None:
        while True:
            await store.expire(time.time())

    async with asyncio.TaskGroup() as group:
        group.create_task(expire())
        for task in range(TASKS):
            group.create_task(fill(task))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
