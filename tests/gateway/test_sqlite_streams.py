"""The embedded store of kept streams: who may open what, what it says of files that are not its own, and how groups are made."""

import asyncio
import fcntl
import os
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.modes.resumable.sqlite_file import FILE, LOCK
from gateway.modes.resumable.sqlite_store import SqliteStreamStore
from gateway.modes.resumable.store import COMPLETE, StoreError
from tests.gateway.stream_store_contract import NOW, block, head, keep, load
from tests.kit.stack import REPOSITORY
from tests.kit.waiting import GUARD_SECONDS


async def write(directory: Path, count: int = 3) -> None:
    async with await SqliteStreamStore.open(directory, group_seconds=0) as store:
        for number in range(count):
            await keep(store, head(f"s{number}"), block(number))


async def test_second_gateway_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from gateway.modes.resumable.sqlite_store import SqliteStreamStore\n"
        "asyncio.run(SqliteStreamStore.open(Path(sys.argv[1])))"
    )
    async with asyncio.timeout(240), await SqliteStreamStore.open(tmp_path) as store:
        with pytest.raises(StoreError, match="another gateway keeps its streams there; stop it or choose another GATEWAY_DATA_DIR"):
            await SqliteStreamStore.open(tmp_path)
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, tmp_path, cwd=REPOSITORY, stderr=subprocess.PIPE)
        _, said = await other.communicate()
        assert b"another gateway keeps its streams there" in said
        await keep(store, head("s1"), block(1))
    async with await SqliteStreamStore.open(tmp_path) as store:
        assert (await load(store, "s1")).blocks == block(1)


async def test_cancelled_open_releases_the_directory(tmp_path: Path) -> None:
    opening = asyncio.create_task(SqliteStreamStore.open(tmp_path))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await write(tmp_path)


async def test_failed_open_releases_the_directory(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database")
    for _ in range(3):
        with pytest.raises(StoreError, match="its first 11 bytes are not those of a store of streams"):
            await SqliteStreamStore.open(tmp_path)
    (tmp_path / FILE).unlink()
    await write(tmp_path)


async def test_stored_answers_are_readable_for_the_owner_only(tmp_path: Path) -> None:
    async with await SqliteStreamStore.open(tmp_path / "data" / "gateway", group_seconds=0) as store:
        await keep(store, head("s1"), block(1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data" / "gateway").iterdir()}
        assert stat.S_IMODE((tmp_path / "data" / "gateway").stat().st_mode) == 0o700
    assert modes == dict.fromkeys((FILE, f"{FILE}-wal", f"{FILE}-shm", LOCK), 0o600)


async def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path / 'file'}: streams cannot be kept there")):
        await SqliteStreamStore.open(tmp_path / "file")


def cut_header(path: Path) -> None:
    os.truncate(path, 50)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def write_into_schema(path: Path) -> None:
    """SQLite's message quotes what it cannot read, which is not UTF-8."""
    content = path.read_bytes()
    assert b" INTEGER PRIMARY KEY" in content
    path.write_bytes(content.replace(b" INTEGER PRIMARY KEY", b" '\xb0TEGER PRIMARY KEY"))


def replace_by_text(path: Path) -> None:
    path.write_text("not a database at all, but long enough to have a header" * 10)


def execute(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return change


def replace_by_other_database(path: Path) -> None:
    path.unlink()
    execute("CREATE TABLE t (x)", "PRAGMA application_id = 77")(path)


def lose_file_but_not_its_log(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}-wal"))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (cut_header, "its first 50 bytes are not those of a store of streams"),
        (empty, "its first 0 bytes"),
        (overwrite_pages, "it is damaged"),
        (write_into_schema, "its schema is damaged"),
        (replace_by_text, "its first 100 bytes are not"),
        (replace_by_other_database, r"it is a database of another program \(application id 0x4d\)"),
        (execute("DROP TABLE parts"), "'parts' differs from this program's schema"),
        (execute("CREATE TABLE mine (x)"), "'mine' differs from this program's schema"),
        (execute("PRAGMA user_version = 0"), "it has format 0, which no program ever wrote"),
        (lose_file_but_not_its_log, "it is missing, but its write-ahead log exists"),
    ],
)
async def test_unusable_file_is_refused_with_advice_and_left_unchanged(tmp_path: Path, harm: Callable[[Path], None], says: str) -> None:
    await write(tmp_path)
    harm(tmp_path / FILE)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=says) as raised:
        await SqliteStreamStore.open(tmp_path)
    assert f"move the files {FILE}* away" in str(raised.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for path in tmp_path.glob(f"{FILE}*"):
        path.rename(tmp_path / f"away.{path.name}")
    await write(tmp_path)


async def test_file_of_a_newer_gateway_asks_for_the_newer_gateway(tmp_path: Path) -> None:
    await write(tmp_path)
    execute("PRAGMA user_version = 4")(tmp_path / FILE)
    with pytest.raises(StoreError, match="it has format 4, and this program knows formats up to 3; use the newer program again"):
        await SqliteStreamStore.open(tmp_path)
    execute("PRAGMA user_version = 3")(tmp_path / FILE)
    async with await SqliteStreamStore.open(tmp_path) as store:
        assert (await load(store, "s2")).blocks == block(2)


async def test_half_made_file_of_an_earlier_start_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.new").write_bytes(b"half")
    (tmp_path / f"{FILE}.new-journal").write_bytes(b"half")
    await write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, FILE]


async def test_stream_that_lost_a_part_is_never_given_as_if_it_were_whole(tmp_path: Path) -> None:
    async with await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await keep(store, head("s1"), block(1), block(2))
        await keep(store, head("s2"), block(3))
    execute("DELETE FROM parts WHERE number = 2")(tmp_path / FILE)
    async with await SqliteStreamStore.open(tmp_path) as store:
        with pytest.raises(StoreError, match="stream 's1' has 9 bytes, and should have 18"):
            await load(store, "s1")
        assert (await load(store, "s2")).blocks == block(3)


async def test_damage_that_is_met_later_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        await keep(store, head("s1"), os.urandom(50_000))
        await keep(store, head("s2"), os.urandom(50_000))
    with (tmp_path / FILE).open("r+b") as file:  # the pages of s2 are the newest
        file.seek(-40_000, os.SEEK_END)
        file.write(b"\xff" * 40_000)
    async with await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        with pytest.raises(StoreError, match="it is damaged"):
            await load(store, "s2")
        assert len((await load(store, "s1")).blocks) == 50_000


async def test_appends_of_many_streams_become_few_transactions(tmp_path: Path) -> None:
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0.2) as store:
        for given in map(head, map(str, range(3))):
            await store.create(given)
        begun = time.monotonic()
        await asyncio.gather(*(store.append(str(stream), block(number)) for number in range(400) for stream in range(3)))
        assert time.monotonic() - begun >= 0.1  # the last creation was a moment ago
        parts = sqlite3.connect(tmp_path / FILE).execute("SELECT stream, length(blocks) FROM parts").fetchall()
    size = sum(len(block(number)) for number in range(400))
    assert parts == [(1, size), (2, size), (3, size)]


async def test_change_that_was_asked_for_behind_one_that_failed_is_not_made(tmp_path: Path) -> None:
    """Otherwise the stream had a hole."""
    async with asyncio.timeout(GUARD_SECONDS), await SqliteStreamStore.open(tmp_path, group_seconds=0) as store:
        for id in ("s1", "s2"):
            await store.create(head(id))
        locked = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
        store._writer.file.connection.execute("PRAGMA busy_timeout = 1")
        first = asyncio.ensure_future(store.append("s1", block(1)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the group is under way
        calls = (store.append_all([("s1", block(2))]), store.append("s1", block(2)), store.finish("s1", COMPLETE, "", NOW))
        together, *late = [asyncio.ensure_future(call) for call in calls]
        other = asyncio.ensure_future(store.append("s2", block(3)))
        with pytest.raises(StoreError, match="database is locked"):
            await first
        locked.execute("COMMIT")
        locked.close()
        assert [type(outcome) for outcome in await asyncio.gather(*late, return_exceptions=True)] == [StoreError, StoreError]
        assert [type(outcome) for outcome in await together] == [StoreError]
        await asyncio.gather(other, return_exceptions=True)
        await keep_going(store)


async def keep_going(store: SqliteStreamStore) -> None:
    """Repeat the failed calls, and check that nothing is missing."""
    for number in (1, 2):
        await store.append("s1", block(number))
    await store.finish("s1", COMPLETE, "", NOW)
    assert ((await load(store, "s1")).state, (await load(store, "s1")).blocks) == (COMPLETE, block(1) + block(2))


async def test_lock_is_the_processs_own_and_ends_with_it(tmp_path: Path) -> None:
    await write(tmp_path)
    held = os.open(tmp_path / LOCK, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="another gateway"):
        await SqliteStreamStore.open(tmp_path)
    os.close(held)
    await write(tmp_path / "other")
    async with await SqliteStreamStore.open(tmp_path) as store:
        assert (await load(store, "s0")).state == COMPLETE
