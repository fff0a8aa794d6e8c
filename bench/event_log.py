"""Measure the event log by itself: appending, bulk reads, and the first read at any depth of a large log."""

import asyncio
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import uvloop

from eventstream.encoder import encode
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE, FORMAT, SCHEMA

from .tables import table

BLOCK = encode('{"sensor": "hall-3", "celsius": 21.5, "humidity": 0.43, "at": "2026-03-01T12:00:00Z"}', type="reading")
SHALLOW = 1_000
DEPTH = 10
"""The size of the large log, as a multiple of the events that are read."""
_TOPICS = 2_000
_CHOICES = (None, 1, 64, 1000)
"""The numbers of topics to read; None: all."""


def report(repeat: int, *, events: int = 1_000_000, directory: Path | None = None) -> str:
    """Return the tables; `events` are read. Takes minutes, and temporarily two gigabytes per million events in `directory`."""
    with tempfile.TemporaryDirectory(prefix="bench-event-log-", dir=directory) as room:
        throughput = uvloop.run(_measure_throughput(Path(room), repeat, events))
        depth = uvloop.run(_measure_depth(Path(room), repeat, DEPTH * events))
    return f"### event log: throughput, {len(BLOCK)}-byte blocks\n\n{throughput}\n\n### event log: first read at any depth, ms\n\n{depth}"


async def _measure_throughput(room: Path, repeat: int, events: int) -> str:
    rows = []
    for title, sync, connections, batch, appends in (
        ("batches of 100, 1 publisher, synced", "always", 1, 100, 500),
        ("batches of 100, 16 publishers, synced", "always", 16, 100, 100),
        ("single events, 64 publishers, synced", "always", 64, 1, 200),
        ("single events, 1 publisher, synced", "always", 1, 1, 500),
        ("single events, 64 publishers, interval", "interval", 64, 1, 200),
    ):
        _tell(title)
        appends = max(appends * min(events, 1_000_000) // 1_000_000, 10)
        rates = []
        for _ in range(repeat):
            async with _fresh(room / "appends", sync) as log:
                began = time.perf_counter()
                await asyncio.gather(*(_publish(log, f"topic.{number}", batch, appends) for number in range(connections)))
                rates.append(connections * batch * appends / (time.perf_counter() - began))
        rows.append([title, f"{statistics.median(rates):,.0f}"])
    async with _fresh(room / "reads", "interval") as log:
        _tell(f"appending {events} events to read")
        await asyncio.gather(*(_publish(log, f"topic.{number}", events // 80, 10) for number in range(8)))
        for title, topics in (("read of all topics", None), ("read of 8 topics", [f"topic.{number}" for number in range(8)])):
            _tell(title)
            rates = [await _read_all(log, topics) for _ in range(repeat)]
            rows.append([f"{title}, {events:,} events", f"{statistics.median(rates):,.0f}"])
    return table(["", "events/s"], rows)


async def _publish(log: SqliteEventLog, topic: str, batch: int, appends: int) -> None:
    for _ in range(appends):
        await log.append(topic, [BLOCK] * batch)


async def _read_all(log: SqliteEventLog, topics: Sequence[str] | None) -> float:
    began = time.perf_counter()
    after = count = 0
    while after < log.last:
        batch = await log.read(after, log.last, topics)
        after, count = batch.through, count + len(batch.events)
    return count / (time.perf_counter() - began)


async def _measure_depth(room: Path, repeat: int, deep: int) -> str:
    columns = []
    for count in (SHALLOW, deep):
        _tell(f"making a log of {count:,} events")
        await _make(room / "depth", count)
        began = time.perf_counter()
        async with await SqliteEventLog.open(room / "depth") as log:
            opened = time.perf_counter() - began
            columns.append([opened * 1000, *[await _first_read(log, topics, repeat) for topics in _CHOICES]])
        shutil.rmtree(room / "depth")
    titles = ["open", *map(_describe, _CHOICES)]
    rows = [[title, *(f"{value:.1f}" for value in values)] for title, *values in zip(titles, *columns, strict=True)]
    return table(["", f"{SHALLOW:,} events", f"{deep:,} events"], rows)


def _describe(topics: int | None) -> str:
    return "all topics" if topics is None else "1 topic" if topics == 1 else f"{topics:,} topics"


async def _first_read(log: SqliteEventLog, topics: int | None, repeat: int) -> float:
    """Return the milliseconds of the slowest of some reads at the beginning, in the middle and at the end, each the first there."""
    names = None if topics is None else [f"topic.{number}" for number in range(topics)]
    slowest = 0.0
    for place in (0, log.last // 2, log.last - log.last // 20):
        for turn in range(2 * repeat + 1):
            began = time.perf_counter()
            await log.read(min(place + turn * log.last // 100, log.last - 1), log.last, names)
            slowest = max(slowest, time.perf_counter() - began)
    return slowest * 1000


async def _make(directory: Path, count: int) -> None:
    """Fill an empty log by SQL alone, because appending that many events would take longer than all measurements."""
    async with await SqliteEventLog.open(directory) as log:
        epoch = log.epoch
    with contextlib.closing(FORMAT.connect(directory / FILE)) as connection:
        for pragma in ("journal_mode = DELETE", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}").fetchone()
        connection.execute("BEGIN")
        connection.execute("DROP INDEX events_by_topic")
        text = f"'id: {epoch}-' || i || char(10) || ?2"
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)"
            f" INSERT INTO events SELECT i, 1 + (i * 7919 + i / 2000) % {_TOPICS}, 1700000000000 + i, CAST({text} AS BLOB) FROM n",
            (count, BLOCK.decode()),
        )
        connection.execute(SCHEMA["events_by_topic"])
        topics = "SELECT topic, 'topic.' || (topic - 1), count(*), sum(length(block)), max(offset), 0 FROM events GROUP BY topic"
        connection.execute(f"INSERT INTO topics {topics}")
        connection.execute("UPDATE state SET begin = ?", (count + 1,))
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()


@contextlib.asynccontextmanager
async def _fresh(directory: Path, sync: str) -> AsyncIterator[SqliteEventLog]:
    try:
        async with await SqliteEventLog.open(directory, sync="always" if sync == "always" else "interval") as log:
            yield log
    finally:
        shutil.rmtree(directory)


def _tell(what: str) -> None:
    print(f"event log: {what}", file=sys.stderr, flush=True)
