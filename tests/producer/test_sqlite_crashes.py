"""The embedded event log after a crash at any moment: acknowledged events exist, no append is partial, no offset is reused."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from producer.log import sqlite_store
from producer.log.check import LogAudit
from producer.log.event_log import Appended, IdempotencyKey, Stored
from producer.log.retention import Retention
from producer.log.sqlite_group import Entry, Group
from producer.log.sqlite_log import SqliteEventLog
from producer.log.sqlite_reader import Reader
from producer.log.sqlite_schema import FILE
from producer.log.sqlite_store import Store
from tests.producer.sqlite_disk import Disk, disk, lottery

pytestmark = pytest.mark.process  # waits seconds for the disk


@dataclass(slots=True)
class Progress:
    """The state of the work at some moment."""

    acknowledged: list[tuple[str, IdempotencyKey | None, Appended]] = field(default_factory=list)
    told: list[Stored] = field(default_factory=list)
    """The events that watchers got."""
    may_be_gone: dict[str, int] = field(default_factory=dict)
    must_be_gone: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Progress":
        return Progress([*self.acknowledged], [*self.told], {**self.may_be_gone}, {**self.must_be_gone})


async def publish(log: SqliteEventLog, progress: Progress, topic: str, texts: Sequence[str], key: IdempotencyKey | None = None) -> None:
    done = await log.append(topic, [f"data: {text}\n\n".encode() for text in texts], key)
    progress.acknowledged.append((topic, key, done))


async def work(directory: Path, progress: Progress, sync: Literal["always", "interval"]) -> None:
    """Run groups of appends, some larger than a page, some with keys; a trim, a drop, and a close."""
    retention = Retention(max_events=14)
    log = await SqliteEventLog.open(directory, sync=sync, sync_interval_ms=1, retention=retention, upkeep_seconds=10_000)
    async with log:
        log.watch(progress.told.extend)
        for turn in range(4):
            key = IdempotencyKey(f"key-{turn}", b"content")
            await asyncio.gather(
                publish(log, progress, "a", [f"{turn}", "x" * 3000, "y" * 3000]),
                publish(log, progress, "b", [f"{turn}"], key),
                publish(log, progress, f"c{turn}", [f"{turn}", "z"]),
            )
            if turn == 2:
                progress.may_be_gone["c1"] = log.last
                await log.drop("c1")
                progress.must_be_gone["c1"] = log.topics["c1"].gone_through
                await log.sweep()
        progress.may_be_gone |= dict.fromkeys(["a", "b", "c0"], log.last - 14)
        await log.trim()


def verify(image: Path, moment: Progress, end: Progress, *, lossless: bool) -> None:
    """Open what a crash left, as the next process would. `end` is the final state of the uninterrupted work."""
    store = Store(image, always=True)
    try:
        reader = Reader(store.path, store.names)
        found = {event.offset: event for event in reader.read(0, 2**62, None, 10_000, 10**9).events}
        reader.close()
        gone = {name: row.gone_through for name, row in store.rows.items()}
        for topic, _, done in end.acknowledged:
            kept = range(max(done.first, gone.get(topic, 0) + 1), done.last + 1)
            assert len({offset in found for offset in kept}) < 2, f"{done} is partial"
        known = {event.offset: event for event in end.told}
        assert all(known[offset] == event for offset, event in found.items())
        for topic, key, done in moment.acknowledged:
            kept = range(max(done.first, gone.get(topic, 0) + 1), done.last + 1)
            assert all(offset in found for offset in kept) or (not lossless and done.first > max(found, default=0)), f"{done} is lost"
            if lossless and key and moment.may_be_gone.get(topic, 0) < done.first:
                assert append(store, topic, key) == replace(done, repeated=True)
        for topic, through in gone.items():
            assert through <= max(moment.may_be_gone.get(topic, 0), store.forgotten_through), f"{topic} should not be removed"
            assert not lossless or moment.must_be_gone.get(topic, 0) <= through, f"{topic} is back"
        assert append(store, "a").first > max((event.offset for event in moment.told), default=0)
    finally:
        store.close()
    audit = LogAudit(image / FILE)
    assert [problem for problem in audit.check() if problem] == []


def append(store: Store, topic: str, key: IdempotencyKey | None = None) -> Appended:
    entry = Entry(topic, [b"data: next\n\n"], key)
    Group(store, [entry], key_seconds=1000).commit()
    assert isinstance(entry.outcome, Appended)
    return entry.outcome


class Camera:
    """Takes an image of the disk before each change of a file and halfway through it, with the acknowledgements at that moment."""

    def __init__(self, watched: Disk, root: Path, progress: Progress, *, power_cut: bool) -> None:
        self._watched, self._root, self._progress, self._power_cut = watched, root, progress, power_cut
        self.images: list[tuple[str, Path, Progress]] = []
        watched.watcher = self._take

    def _take(self, change: str) -> None:
        number = len(self.images)
        share = number % 3 / 2  # a power cut keeps none, half or all of the unsynced data
        self._watched.image(self._root / str(number), keep=lottery(number, share) if self._power_cut else None)
        self.images.append((change, self._root / str(number), self._progress.copy()))


@pytest.mark.parametrize("sync", ["always", "interval"])
@pytest.mark.parametrize("crash", ["process killed", "power cut"])
async def test_log_is_whole_after_a_crash_at_any_change_of_a_file(
    tmp_path: Path, sync: Literal["always", "interval"], crash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, images, progress = tmp_path / "log", tmp_path / "images", Progress()
    Store(directory, always=True).close()
    images.mkdir()
    with disk(directory) as watched:
        camera = Camera(watched, images, progress, power_cut=crash == "power cut")
        await work(directory, progress, sync)
    assert {"write events.sqlite3", "half written events.sqlite3-wal"} <= {change for change, _, _ in camera.images}
    if crash == "power cut":
        (tmp_path / "boot_id").write_text("another")
        monkeypatch.setattr(sqlite_store, "_BOOT_ID", tmp_path / "boot_id")
    for change, image, moment in camera.images:
        try:
            verify(image, moment, progress, lossless=crash == "process killed" or sync == "always")
        except BaseException as error:
            error.add_note(f"image {image.name}: {change}")
            raise
        shutil.rmtree(image)
