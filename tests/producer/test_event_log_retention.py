"""What the event log removes by itself, and when."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from producer.log import sqlite_group, sqlite_removal
from producer.log.check import LogAudit
from producer.log.event_log import Appended, KeyReused, LogFull
from producer.log.retention import Retention, upkeep
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_schema import FILE
from service.storage import database
from tests.kit.waiting import GUARD_SECONDS
from tests.producer.event_log_contract import blocks, key, read_all


class Clock:
    """Replaces the time of day."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        for module in (sqlite_group, sqlite_removal):
            monkeypatch.setattr(module.time, "time", lambda: self.now)


async def becomes(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD_SECONDS):
        while not fact():
            await asyncio.sleep(0.01)


def assert_clean(directory: Path) -> None:
    assert [problem for problem in LogAudit(directory / FILE).check() if problem] == []


async def test_oldest_events_are_removed_when_there_are_too_many(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_events=100), upkeep_seconds=0.01) as log:
        for _ in range(30):
            await log.append("a", blocks(*map(str, range(100))))
        await becomes(lambda: log.topics["a"].count == 100)
        assert [event.offset for event in await read_all(log)] == list(range(2901, 3001))
    assert_clean(tmp_path)


async def test_events_are_removed_only_when_their_bytes_are_too_many(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_bytes=5000), upkeep_seconds=10_000) as log:
        for number in range(40):
            await log.append(f"t{number % 3}", blocks("x" * 100 * (number % 5)))
        while await log.trim():
            pass
        kept = await read_all(log)
        size = sum(len(event.block) for event in kept)
        before = await log.get(kept[0].offset - 1)
        assert before is None
        assert 4500 < size <= 5000
        assert sum(topic.bytes for topic in log.topics.values()) == size
    assert_clean(tmp_path)


async def test_events_are_removed_when_they_are_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_age_seconds=60), upkeep_seconds=10_000) as log:
        await log.append("a", blocks("old"))
        clock.now += 30
        await log.append("b", blocks("newer"))
        assert await log.trim() == 0
        clock.now += 30.001
        assert await log.trim() == 1
        assert [event.topic for event in await read_all(log)] == ["b"]
        assert (await log.read(0, log.last, ["b"])).gone_through == 0


async def test_event_is_never_older_than_the_previous_one_when_the_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with await SqliteEventLog.open(tmp_path) as log:
        await log.append("a", blocks("one"))
        clock.now -= 1000
        await log.append("a", blocks("two"))
        assert await log.offset_before(1_000_000_000) == 0
    clock.now += 1000
    async with await SqliteEventLog.open(tmp_path) as log:
        await log.append("a", blocks("three"))
    assert_clean(tmp_path)


async def test_offset_before_a_time_finds_where_its_events_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_events=60), upkeep_seconds=10_000) as log:
        for second in range(50):
            clock.now = 2_000_000 + second
            await log.append("gone" if second % 3 else "a", blocks("x", "y"))
        for second in range(50):
            assert await log.offset_before((2_000_000 + second) * 1000) == second * 2
            assert await log.offset_before((2_000_000 + second) * 1000 - 1) == second * 2
        assert await log.offset_before(3_000_000_000) == log.last == 100
        assert await log.offset_before(0) == 0
        await log.trim()
        assert await log.offset_before(2_000_025_000) == 50
        assert await log.offset_before(2_000_020_000) == 40
        assert await log.offset_before(2_000_019_000) == 0, "some of these are gone, and reading from 0 reports it"
        await log.drop("gone")
        await log.drop("a")
        while await log.sweep():
            pass
        assert await log.offset_before(2_000_019_000) == 0
        assert await log.offset_before(2_000_049_000) == 100


async def test_key_is_forgotten_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with await SqliteEventLog.open(tmp_path, key_retention_seconds=60, upkeep_seconds=10_000) as log:
        await log.append("a", blocks("one"), key("k"))
        clock.now += 59
        assert await log.append("a", blocks("one"), key("k")) == Appended(1, 1, repeated=True)
        with pytest.raises(KeyReused):
            await log.append("a", blocks("other"), key("k", "other"))
        clock.now += 1.001
        assert await log.append("a", blocks("other"), key("k", "other")) == Appended(2, 2)
        assert await log.append("a", blocks("other"), key("k", "other")) == Appended(2, 2, repeated=True)
        clock.now += 60.001
        assert await log.sweep()
        assert not await log.sweep()
    assert_clean(tmp_path)


async def test_key_outlives_its_event(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_events=1), upkeep_seconds=10_000) as log:
        await log.append("a", blocks("one"), key("k"))
        await log.append("a", blocks("two"))
        assert await log.trim() == 1
        assert await log.append("a", blocks("one"), key("k")) == Appended(1, 1, repeated=True)


async def test_number_of_keys_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_removal, "MOST_KEYS", 10)
    async with await SqliteEventLog.open(tmp_path, upkeep_seconds=10_000) as log:
        for number in range(30):
            await log.append("a", blocks("x"), key(str(number)))
        while await log.sweep():
            pass
        assert (await log.append("a", blocks("x"), key("20"))).repeated
        assert not (await log.append("a", blocks("x"), key("19"))).repeated


async def test_empty_topics_beyond_a_limit_are_forgotten_and_any_topic_may_then_have_lost_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_removal, "MOST_EMPTY_TOPICS", 10)
    async with await SqliteEventLog.open(tmp_path, upkeep_seconds=10_000) as log:
        await log.append("keyed", blocks("x"), key("k"))
        await log.drop("keyed")
        await log.append("keyed", blocks("x"), key("k"))
        for number in range(20):
            await log.append(f"t{number}", blocks("x"))
        for topic in [*log.topics]:
            if topic != "keyed":
                await log.drop(topic)
        while await log.sweep():
            pass
        assert sorted(log.topics) == sorted(["keyed", *(f"t{number}" for number in range(11, 20))])
        assert (await log.read(0, log.last, ["t1"])).gone_through == 13
        assert (await log.read(0, log.last, ["keyed"])).gone_through == 13
        assert (await log.read(0, log.last, ["t19"])).gone_through == 22
        assert await log.append("t1", blocks("again")) == Appended(23, 23)
    async with await SqliteEventLog.open(tmp_path) as log:
        assert (await log.read(0, log.last, ["t2"])).gone_through == 13
    assert_clean(tmp_path)


async def test_dropped_events_leave_the_file_step_by_step_and_it_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_removal, "STEP_PAGES", 8)
    monkeypatch.setattr(database, "SPARE_BYTES", 2_000_000)
    async with await SqliteEventLog.open(tmp_path, upkeep_seconds=10_000) as log:
        for number in range(30):
            await log.append("large", blocks(*["x" * 1000] * 200))
            await log.append("small", blocks(str(number)))
        assert await log.drop("large") == 6000
        assert len(await read_all(log)) == 30
        steps = 0
        while await log.sweep():
            steps += 1
            assert len(await read_all(log)) == 30
        assert steps > 4
    assert (tmp_path / FILE).stat().st_size < 3_500_000
    assert_clean(tmp_path)


async def test_appends_continue_while_many_events_are_removed(tmp_path: Path) -> None:
    async with await SqliteEventLog.open(tmp_path, upkeep_seconds=10_000) as log:
        for _ in range(15):
            await log.append("a", blocks(*["x" * 100] * 1000))
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_events=1000), upkeep_seconds=10_000) as log:
        removing = asyncio.create_task(remove_all(log, "a"))
        appended = 0
        while not removing.done():
            await log.append("b", blocks("x"))
            appended += 1
        steps = await removing
        assert steps > 5
        assert appended >= steps // 2, "an append waits for one step, not for all"


async def remove_all(log: SqliteEventLog, topic: str) -> int:
    steps = 0
    while log.topics[topic].count:
        assert await log.trim()
        steps += 1
    return steps


async def test_upkeep_logs_a_failure_once_and_retries(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    outcomes: list[Any] = [LogFull("no room"), LogFull("no room"), 5, 0, LogFull("no room"), 0]
    done = asyncio.Event()

    async def step() -> int:
        if not outcomes:
            done.set()
            return 0
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return int(outcome)

    keeping = asyncio.create_task(upkeep([step], pause_seconds=0))
    async with asyncio.timeout(GUARD_SECONDS):
        await done.wait()
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert capsys.readouterr().out.count("event log upkeep failed") == 2


async def test_emptied_topic_whose_keys_are_known_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_removal, "MOST_EMPTY_TOPICS", 2)
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_events=1), upkeep_seconds=10_000) as log:
        await log.append("keyed", blocks("x"), key("k"))
        for number in range(10):
            await log.append(f"t{number}", blocks("x"))
        while await log.trim() or await log.sweep():
            pass
        assert "keyed" in log.topics
        assert "t1" not in log.topics
        assert await log.append("keyed", blocks("x"), key("k")) == Appended(1, 1, repeated=True)


@pytest.mark.parametrize("how", ["dropped", "too old"])
async def test_log_that_lost_all_its_events_keeps_counting(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    async with await SqliteEventLog.open(tmp_path, retention=Retention(max_age_seconds=60), upkeep_seconds=10_000) as log:
        await log.append("a", blocks("one", "two"))
        clock.now += 100
        assert await (log.drop("a") if how == "dropped" else log.trim()) == 2
        while await log.sweep():
            pass
    async with await SqliteEventLog.open(tmp_path) as log:
        assert (log.last, await log.first()) == (2, 0)
        assert await log.append("a", blocks("three")) == Appended(3, 3)
    assert_clean(tmp_path)
