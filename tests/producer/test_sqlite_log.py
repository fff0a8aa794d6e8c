"""The embedded event log: access, errors for foreign files, opening and closing."""

import asyncio
import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from producer.log import sqlite_store
from producer.log.event_log import Appended, LogDamaged, LogInUse, Stored
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE, LOCK
from producer.log.sqlite_store import AHEAD
from tests.kit.stack import REPOSITORY
from tests.producer.event_log_contract import blocks, key, read_all


async def write(directory: Path, count: int = 3) -> None:
    async with await SqliteEventLog.open(directory) as log:
        for number in range(count):
            await log.append("a", blocks(str(number)))


async def test_log_is_readable_only_by_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "log"
    async with await SqliteEventLog.open(directory) as log:
        await log.append("a", blocks("secret"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}
    assert modes.pop("log") == 0o700
    assert set(modes) >= {FILE, LOCK}
    assert set(modes.values()) == {0o600}


async def test_second_process_is_refused_until_the_first_exits(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from producer.log.sqlite_log import SqliteEventLog\n"
        "asyncio.run(SqliteEventLog.open(Path(sys.argv[1])))"
    )
    async with await SqliteEventLog.open(tmp_path) as log:
        with pytest.raises(LogInUse, match="another producer has this log open; stop it or set another PRODUCER_LOG_DIR"):
            await SqliteEventLog.open(tmp_path)
        other = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        assert "LogInUse" in other.stderr
        assert await log.append("a", blocks("one")) == Appended(1, 1)
    async with await SqliteEventLog.open(tmp_path) as log:
        assert log.last == 1


async def test_lock_that_is_held_for_a_moment_does_not_keep_a_log_from_opening(tmp_path: Path) -> None:
    await write(tmp_path)
    looking = os.open(tmp_path / LOCK, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    opening = asyncio.create_task(SqliteEventLog.open(tmp_path))
    await asyncio.sleep(0.05)
    assert not opening.done()
    os.close(looking)
    async with asyncio.timeout(120), await opening as log:
        assert log.last == 3


def cut_header(path: Path) -> None:
    os.truncate(path, 50)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def overwrite_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def cut_off_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def write_into_schema(path: Path) -> None:
    """SQLite's message quotes the unreadable part, which is not UTF-8."""
    content = path.read_bytes()
    assert b" INTEGER PRIMARY KEY" in content
    path.write_bytes(content.replace(b" INTEGER PRIMARY KEY", b" '\xb0TEGER PRIMARY KEY"))


def replace_by_text(path: Path) -> None:
    path.write_text("not a database at all, but long enough to have a header" * 10)


def replace_by_other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE others (x)")
    connection.close()


def change(sql: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(sql)
        connection.close()

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_header, "its first 50 bytes are not those of an event log"),
        (empty, "its first 0 bytes are not those of an event log"),
        (overwrite_pages, "damaged"),
        (write_into_schema, "its schema is damaged"),
        (cut_off_half, "damaged"),
        (replace_by_text, "are not those of an event log"),
        (replace_by_other_database, "a database of another program"),
        (change("PRAGMA user_version = 0"), "it has format 0"),
        (change("DROP INDEX events_by_topic"), "'events_by_topic' differs from this program's schema"),
        (change("DELETE FROM events WHERE offset = 3"), "its newest event is 2, but should be 3"),
        (change("DELETE FROM state"), "its tables are inconsistent"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_damaged_or_foreign_file_is_refused_untouched_with_what_to_do(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    await write(tmp_path)
    damage(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(LogDamaged, match=says) as caught:
        await SqliteEventLog.open(tmp_path)
    assert f"`python -m producer check {tmp_path}`" in str(caught.value)
    assert f"move the files {FILE}* away" in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == before
    for file in tmp_path.glob(f"{FILE}*"):
        file.rename(tmp_path / f"old-{file.name}")
    async with await SqliteEventLog.open(tmp_path) as log:
        assert log.last == 0


async def test_file_of_a_newer_program_is_refused_without_advice_to_remove_it(tmp_path: Path) -> None:
    await write(tmp_path)
    change("PRAGMA user_version = 2")(tmp_path / FILE)
    with pytest.raises(LogDamaged, match="it has format 2, and this program knows formats up to 1; use the newer program again"):
        await SqliteEventLog.open(tmp_path)


async def test_write_ahead_log_without_its_file_is_refused(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path / "log") as log:
        await log.append("a", blocks("one"))
        shutil.copytree(tmp_path / "log", tmp_path / "copy")
    (tmp_path / "copy" / FILE).unlink()
    with pytest.raises(LogDamaged, match="it is missing, but its write-ahead log exists"):
        await SqliteEventLog.open(tmp_path / "copy")


async def test_interrupted_creation_is_repeated(tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.new").write_bytes(b"SQLite format 3\0half a file")
    (tmp_path / f"{FILE}.new-journal").write_bytes(b"x")
    await write(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [FILE, LOCK]


async def test_close_leaves_one_file_that_can_be_copied(tmp_path: Path) -> None:
    await write(tmp_path / "log")
    assert sorted(file.name for file in (tmp_path / "log").iterdir()) == [FILE, LOCK]
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "log" / FILE, tmp_path / "copy" / FILE)
    async with await SqliteEventLog.open(tmp_path / "copy") as log:
        assert len(await read_all(log)) == 3


async def test_interval_log_skips_offsets_after_a_power_cut_and_reports_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await SqliteEventLog.open(tmp_path / "log", sync="interval", sync_interval_ms=60_000)
    await log.append("a", blocks("one"))
    shutil.copytree(tmp_path / "log", tmp_path / "killed")
    await log.append("a", blocks("two"))
    shutil.copytree(tmp_path / "log", tmp_path / "cut")
    await log.close()

    async with await SqliteEventLog.open(tmp_path / "killed") as log:
        assert (log.last, (await log.read(0, log.last)).gone_through) == (1, 0)
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(sqlite_store, "_BOOT_ID", tmp_path / "boot_id")
    wal = tmp_path / "cut" / f"{FILE}-wal"
    os.truncate(wal, wal.stat().st_size - 100)
    for _ in range(2):
        async with await SqliteEventLog.open(tmp_path / "cut") as log:
            assert 2 < log.last <= AHEAD
            skipped = log.last
            batch = await log.read(0, log.last)
            assert [event.offset for event in batch.events] == [1]
            assert batch.gone_through == skipped
            assert (await log.read(0, log.last, ["a"])).gone_through == skipped
    async with await SqliteEventLog.open(tmp_path / "cut") as log:
        assert await log.append("a", blocks("three")) == Appended(skipped + 1, skipped + 1)


async def test_interval_log_is_synced_after_the_interval_and_not_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, synced_at = asyncio.Event(), 0.0
    loop, real_fsync = asyncio.get_running_loop(), os.fsync

    def fsync(handle: int) -> None:
        nonlocal synced_at
        synced_at = time.monotonic()
        real_fsync(handle)
        loop.call_soon_threadsafe(synced.set)

    async with asyncio.timeout(120), await SqliteEventLog.open(tmp_path, sync="interval", sync_interval_ms=100) as log:
        monkeypatch.setattr(os, "fsync", fsync)
        began = time.monotonic()
        await log.append("a", blocks("one"))
        await synced.wait()
        assert synced_at - began >= 0.09
        synced.clear()
        await asyncio.sleep(0.25)  # two intervals and a half
        assert not synced.is_set(), "nothing was written since"


async def test_failed_sync_is_repaired_by_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = asyncio.Event()
    loop, real_fsync = asyncio.get_running_loop(), os.fsync

    def fsync(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", real_fsync)
        loop.call_soon_threadsafe(failed.set)
        raise OSError(errno.EIO, "the disk failed")

    async with asyncio.timeout(120), await SqliteEventLog.open(tmp_path, sync="interval", sync_interval_ms=10) as log:
        monkeypatch.setattr(os, "fsync", fsync)
        await log.append("a", blocks("one"))
        await failed.wait()
        while (tmp_path / f"{FILE}-wal").stat().st_size:  # the appended events are in the file, synced
            await asyncio.sleep(0.01)
        assert b"data: one" in (tmp_path / FILE).read_bytes()


async def test_write_ahead_log_shrinks_when_a_long_reader_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "_LARGEST_WAL_BYTES", 10_000_000)
    monkeypatch.setattr(sqlite_store, "_CHECKPOINT_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(sqlite_store, "_ROOM_SECONDS", 0.0)  # it is checked while the reader is active
    wal = tmp_path / f"{FILE}-wal"
    async with asyncio.timeout(120), await SqliteEventLog.open(tmp_path) as log:
        await log.append("a", blocks("one"))
        reading = sqlite3.connect(tmp_path / FILE, isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM events").fetchone()
        while wal.stat().st_size < 15_000_000:
            await log.append("a", blocks("x" * 200_000))
        reading.execute("COMMIT")
        reading.close()
        while wal.stat().st_size > 10_000_000:
            await log.append("a", blocks("x" * 200_000))


async def test_cancelled_append_still_happens(tmp_path: Path) -> None:
    async with asyncio.timeout(120), await SqliteEventLog.open(tmp_path) as log:
        told = asyncio.Event()
        log.watch(lambda events: told.set())
        append = asyncio.create_task(log.append("a", blocks("one"), key("k")))
        await asyncio.sleep(0)
        append.cancel()
        with pytest.raises(asyncio.CancelledError):
            await append
        await told.wait()
        assert await log.append("a", blocks("one"), key("k")) == Appended(1, 1, repeated=True)


async def test_watcher_that_fails_does_not_keep_publishers_waiting(tmp_path: Path) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    seen: list[Stored] = []

    def fail(events: Sequence[Stored]) -> None:
        raise RuntimeError("watcher failed")

    async with asyncio.timeout(120), await SqliteEventLog.open(tmp_path) as log:
        log.watch(fail)
        log.watch(seen.extend)
        assert await log.append("a", blocks("one")) == Appended(1, 1)
        assert await log.append("a", blocks("two")) == Appended(2, 2)
    assert [str(failure) for failure in failures] == ["watcher failed"] * 2
    assert [event.offset for event in seen] == [1, 2]


@pytest.mark.parametrize(
    "block", [b"", b"\n\n", b"data: x\n", b"data: x\n\ndata: y\n\n", b"id: 1\ndata: x\n\n", b"data: x\nid: 1\n\n", b"data: x\r\n\r\n"]
)
async def test_invalid_block_is_refused(tmp_path: Path, block: bytes) -> None:
    async with await SqliteEventLog.open(tmp_path) as log:
        with pytest.raises(ValueError, match="whole event blocks, with LF line ends and without an id line"):
            await log.append("a", [b"data: fine\n\n", block])
        with pytest.raises(ValueError, match="one or more"):
            await log.append("a", [])
        with pytest.raises(UnicodeEncodeError):
            await log.append("\ud800", [b"data: fine\n\n"])
        assert (log.last, log.topics) == (0, {})
