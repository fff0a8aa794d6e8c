"""Publish to an event log from many tasks at once, and report each acknowledged append on standard output, until killed."""

import asyncio
import itertools
import os
import sys
from pathlib import Path
from typing import Literal, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from producer.log.retention import Retention
from producer.log.sqlite_log import SqliteEventLog

TASKS = 16
BATCH = 5


async def main(directory: Path, sync: Literal["always", "interval"], keep: int) -> None:
    log = await SqliteEventLog.open(directory, sync=sync, sync_interval_ms=5, retention=Retention(max_events=keep), upkeep_seconds=0.01)

    async def publish(task: int) -> None:
        for number in itertools.count():
            size = number % BATCH + 1
            done = await log.append(f"t{task % 4}", [f"data: {task} {number} {part}\n\n".encode() for part in range(size)])
            os.write(1, f"{done.first} {done.last}\n".encode())

    async with asyncio.TaskGroup() as group:
        for task in range(TASKS):
            group.create_task(publish(task))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), cast(Literal["always", "interval"], sys.argv[2]), int(sys.argv[3])))
