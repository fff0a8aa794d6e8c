"""`python -m producer check`: its findings and its messages."""

import asyncio
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from producer.log.check import check
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE
from tests.kit.stack import environment, service_command
from tests.kit.waiting import GUARD_SECONDS
from tests.producer.event_log_contract import blocks, key


async def write(directory: Path) -> None:
    async with await SqliteEventLog.open(directory) as log:
        await log.append("a", blocks("one", "two"), key("k"))
        await log.append("b", blocks("three"))
        await log.append("gone", blocks("four"))
        await log.drop("gone")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = service_command("producer", "check", *map(str, arguments))
    return subprocess.run(command, env=environment("producer", {}), capture_output=True, text=True, timeout=GUARD_SECONDS)


async def test_clean_log_is_reported_as_clean(tmp_path: Path) -> None:
    await write(tmp_path)
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "offsets: 1 to 4\n" in done.stdout
    assert "note: 1 events of dropped topics are still in the file, invisible to readers\n" in done.stdout
    assert done.stdout.endswith("\nclean\n")


async def test_log_that_is_being_written_can_be_checked(tmp_path: Path) -> None:
    async with asyncio.timeout(240), await SqliteEventLog.open(tmp_path) as log:
        stopped = False

        async def publish() -> None:
            while not stopped:
                await log.append("a", blocks("x", "y"))

        publishing = asyncio.create_task(publish())
        for _ in range(2):
            done = await asyncio.to_thread(run, tmp_path)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout
        stopped = True
        await publishing


async def test_log_can_be_checked_and_opened_after_a_crash(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path / "log") as log:
        await log.append("a", blocks("one", "two"))
        shutil.copytree(tmp_path / "log", tmp_path / "crashed")
    (tmp_path / "crashed" / f"{FILE}-shm").unlink()
    done = run(tmp_path / "crashed")
    assert (done.returncode, done.stderr) == (0, "")
    assert "events: 2," in done.stdout
    async with await SqliteEventLog.open(tmp_path / "crashed") as log:
        assert log.last == 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM events WHERE offset = 2", "topic 'a': 2 events of"),
        ("UPDATE topics SET bytes = bytes + 1 WHERE name = 'a'", "topic 'a': 2 events of"),
        ("UPDATE topics SET gone_through = 1 WHERE name = 'a'", "topic 'a': all events up to 1 should be gone, but 1 exists"),
        ("UPDATE events SET block = 'text' WHERE offset = 2", "event 2: its columns have the wrong types"),
        ("UPDATE events SET block = CAST(replace(block, 'id:', 'ID:') AS BLOB) WHERE offset = 2", "event 2: it begins with b'ID: "),
        ("UPDATE events SET block = CAST(block || 'data: more' AS BLOB) WHERE offset = 3", "event 3: it is not exactly one event block"),
        ("UPDATE events SET time_ms = 5 WHERE offset = 3", "event 3: its time 5 is before"),
        ("DELETE FROM topics WHERE name = 'b'", "event 3: its topic number 2 does not exist; 1 events"),
        ("DELETE FROM dropped", "event 4: its topic number 3 does not exist; 1 events"),
        ("UPDATE keys SET last = 9", "idempotency key 'k': it refers to the events 1 to 9, which never existed"),
        ("UPDATE state SET gone_through = 2", "log: the newest removed offset is recorded as 2, but that of its topics is 4"),
        ("UPDATE state SET begin = 10", "log: it continued at offset 10, but the newest offset is 4"),
        ("DROP INDEX events_by_topic", "'events_by_topic' differs from this program's schema"),
    ],
)
async def test_each_fault_is_named(tmp_path: Path, damage: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    await write(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    connection.execute(damage)
    connection.close()
    assert check(tmp_path) == 1
    said = capsys.readouterr().out
    assert says in said
    assert "\nNOT CLEAN: " in said


async def test_damaged_pages_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with await SqliteEventLog.open(tmp_path) as log:
        await log.append("a", blocks(*["x" * 1000] * 200))
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(30 * 4096)
        file.write(b"\xa5" * 4096)
    assert check(tmp_path) == 1
    assert "NOT CLEAN" in capsys.readouterr().out


async def test_directory_without_a_log_is_wrong_usage(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tmp_path}: not an event log (events.sqlite3 is missing)\n"
    assert run(tmp_path, "more").returncode == 2


async def test_log_of_another_program_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).write_text("nothing of ours")
    assert check(tmp_path) == 1
    assert "its first 15 bytes are not those of an event log" in capsys.readouterr().out
