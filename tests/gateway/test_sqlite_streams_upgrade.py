"""The embedded store of kept streams finds the streams of older gateways after an upgrade."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.modes.resumable.sqlite_file import APPLICATION_ID, FILE
from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, CUT, EXPIRED, StoreError
from tests.gateway.sqlite_stream_checks import assert_clean
from tests.gateway.stream_store_contract import DAY_SECONDS, NOW, block, expire_all, head, keep, load

FORMAT_1 = (
    """CREATE TABLE streams (
        number INTEGER PRIMARY KEY, -- in the order in which they were opened
        id TEXT NOT NULL UNIQUE,
        instance TEXT NOT NULL, -- of the opening of the store that took it
        route BLOB NOT NULL,
        method BLOB NOT NULL,
        target BLOB NOT NULL,
        credentials BLOB NOT NULL,
        body BLOB NOT NULL,
        key BLOB NOT NULL,
        fields TEXT NOT NULL, -- a JSON array of pairs
        opened_at REAL NOT NULL
    )""",
    "CREATE INDEX streams_by_key ON streams (key, route, credentials) WHERE key != x''",
    """CREATE TABLE endings (
        stream INTEGER PRIMARY KEY,
        state TEXT NOT NULL,
        reason BLOB NOT NULL,
        ended_at REAL NOT NULL,
        keep_until REAL NOT NULL,
        bytes INTEGER NOT NULL, -- of all its blocks, dropped ones too
        dropped_at REAL -- NULL: the blocks are there
    )""",
    "CREATE INDEX endings_by_keep_until ON endings (keep_until) WHERE dropped_at IS NULL",
    "CREATE INDEX endings_by_dropped_at ON endings (dropped_at) WHERE dropped_at IS NOT NULL",
    """CREATE TABLE parts (
        number INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        blocks BLOB NOT NULL
    )""",
    "CREATE INDEX parts_by_stream ON parts (stream)",
)


def make_format_1(directory: Path) -> None:
    """Leave the file of an older gateway: a complete stream, one that ran, and two whose blocks are dropped, one with a long head."""
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for statement in FORMAT_1:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        for number, id in enumerate(("complete", "ran", "dropped", "dropped long"), 1):
            long = "x" * 60_000 if id == "dropped long" else ""
            values = (number, id, "i", b"/sse", b"POST", b"/sse?q=1", b"c", b"digest", b"k" + long.encode(), f'[["A", "b{long}"]]', NOW - 5)
            connection.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        for number, state, reason, dropped_at in ((1, COMPLETE, b"", None), (3, CUT, b"reset", NOW), (4, CUT, b"r" * 60_000, NOW)):
            ending = (number, state, reason, NOW - 1, NOW + 100, len(block(1) + block(2)), dropped_at)
            connection.execute("INSERT INTO endings VALUES (?, ?, ?, ?, ?, ?, ?)", ending)
        connection.execute("INSERT INTO parts (stream, blocks) VALUES (1, ?), (2, ?), (1, ?)", (block(1), block(3), block(2)))


async def opened(directory: Path) -> SqliteStreamStore:
    return await SqliteStreamStore.open(directory, group_seconds=0, clock=lambda: NOW)


async def test_streams_of_the_first_format_are_found_after_the_upgrade(tmp_path: Path) -> None:
    make_format_1(tmp_path)
    for _ in range(2):
        async with await opened(tmp_path) as store:
            found = await load(store, "complete")
            assert (found.state, found.blocks, found.ended_at) == (COMPLETE, block(1) + block(2), NOW - 1)
            assert (found.head.target, found.head.credentials, found.head.fields) == ("/sse?q=1", b"c", [("A", "b")])
            assert (found.head.key, found.head.owner, found.head.name) == ("k", "", "")
            cut = await load(store, "ran")
            assert (cut.state, cut.blocks) == (CUT, block(3))
            assert await store.find_key("/sse", b"c", "k") == "ran"
            assert [(await load(store, id)).reason for id in ("dropped", "dropped long")] == ["cut: reset", "cut"]
    async with await opened(tmp_path) as store:
        await keep(store, head("new", owner="owner"), block(4))
        assert (await load(store, "new")).blocks == block(4)
        assert await expire_all(store, NOW + 1000) == 3
        assert (await load(store, "complete")).state == EXPIRED
        assert await expire_all(store, NOW + 1000 + DAY_SECONDS) == 5
    assert_clean(tmp_path)
    assert (tmp_path / FILE).stat().st_size < 500_000
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


async def test_upgrade_is_done_whole_or_not_at_all(tmp_path: Path) -> None:
    make_format_1(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("DROP INDEX parts_by_stream")
        connection.execute("DROP TABLE endings")
        connection.commit()
    before = (tmp_path / FILE).read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match="no such table: endings"):
            await opened(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
