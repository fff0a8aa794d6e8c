"""The durable log: it takes lines and writes segments. Lines that it reports as durable survive a power cut."""

import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from service.storage.file_format import sync
from service.storage.lock import is_locked, lock

from .record import decode
from .recovery import Recovered, recover
from .segment import list_segments, segment_path

_WRITE_BYTES = 1024 * 1024
_LONGEST_UNSYNCED_BYTES = 4 * 1024 * 1024  # unsynced lines are kept in memory too, to be written again when a sync fails


SYNC_SECONDS = 1.0
"""Time between syncs, if not every flush syncs."""
_LOCK = "consumer.lock"


class LogInUse(Exception):
    """Another consumer owns the log directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory}: another consumer writes this log; stop it or set another CONSUMER_LOG_DIR")
        self.directory = directory


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a segment is closed, and how often a sync is due."""

    max_bytes: int = 64 * 1024 * 1024
    max_age_seconds: float = 86_400.0
    sync_seconds: float = 0.0
    """Seconds between syncs; 0: sync in every flush."""


class EventLog:
    """A log directory that this process owns. Only one thread at a time may use it; every method may block on the disk.

    `append` only buffers lines; `flush` writes them and returns those that became durable, in order. When `flush` raises OSError
    nothing is lost: call it again, until it succeeds. A write that failed halfway, or was written but not synced, is truncated and
    written again. After a failed fsync the kernel may have dropped the pages, and the next fsync may report success nevertheless.
    """

    def __init__(self, directory: Path, rotation: Rotation, *, source: str, window: int) -> None:
        """Open the log, and create the directory if it is missing; `source` and `window` as for `recover`. Raises LogInUse, OSError."""
        self.directory = directory
        self._rotation = rotation
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock(directory / _LOCK, mode=0o640)
        except BlockingIOError:
            raise LogInUse(directory) from None
        try:
            self.recovered: Recovered = recover(directory, source, window)
            self._unwritten: deque[bytes] = deque()
            self._unsynced: deque[bytes] = deque()
            self._durable: list[bytes] = []
            self._file = -1
            self._broken = False
            self.rotations = 0
            """Segments that were closed since the start."""
            self._next = self.recovered.next_number  # the number of the first line in _unwritten
            self._open_newest()
        except BaseException:
            os.close(self._lock)
            raise

    def __repr__(self) -> str:
        return f"<EventLog {self.directory} next={self._next} unwritten={len(self._unwritten)} unsynced={len(self._unsynced)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def append(self, lines: Iterable[bytes]) -> None:
        """Buffer lines, in the order of their positions."""
        self._unwritten.extend(lines)

    def flush(self, *, sync: bool = False) -> list[bytes]:
        """Write the buffered lines; sync if that is due or if `sync`. Return the lines that are durable now. Raises OSError."""
        if self._broken:
            self._repair()
        self._broken = True  # until the end: after any exception between, the next call repairs first
        while self._unwritten:
            if self._size and (self._size + len(self._unwritten[0]) > self._rotation.max_bytes or self._too_old()):
                self._rotate()
            self._write()
            if self._unsynced_bytes >= _LONGEST_UNSYNCED_BYTES:
                self._sync()
        if self._unsynced and (sync or time.monotonic() - self._synced_at >= self._rotation.sync_seconds):
            self._sync()
        self._broken = False
        durable, self._durable = self._durable, []
        return durable

    def close(self) -> None:
        """Release the directory. Lines that `flush` did not return may be lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open_newest(self) -> None:
        segments = list_segments(self.directory)
        if not segments or segments[-1].compressed or (segments[-1].first != self._next and not segments[-1].path.stat().st_size):
            self._begin_segment()
        else:
            self._use(segments[-1].path)
        self._synced_at = time.monotonic()

    def _use(self, path: Path) -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._path = path
        state = os.fstat(file)
        self._size = self._synced_size = state.st_size
        self._unsynced_bytes = 0
        self._begun_at = _first_received(path) if state.st_size else time.time()

    def _begin_segment(self) -> None:
        self._use(segment_path(self.directory, self._next))
        sync(self.directory)

    def _too_old(self) -> bool:
        return time.time() - self._begun_at > self._rotation.max_age_seconds

    def _rotate(self) -> None:
        if self._unsynced:
            self._sync()  # a segment must be durable before a newer one exists, or a power cut could leave a hole
        self._begin_segment()
        self.rotations += 1

    def _write(self) -> None:
        """Write as many lines as one write should have and the segment has room for, at least one."""
        batch: list[bytes] = []
        length = 0
        for line in self._unwritten:
            if batch and (length + len(line) > _WRITE_BYTES or self._size + length + len(line) > self._rotation.max_bytes):
                break
            batch.append(line)
            length += len(line)
        rest = memoryview(b"".join(batch))
        while rest:
            rest = rest[os.write(self._file, rest) :]
        for _ in batch:
            self._unsynced.append(self._unwritten.popleft())
        self._next += len(batch)
        self._size += length
        self._unsynced_bytes += length

    def _sync(self) -> None:
        os.fsync(self._file)
        if os.fstat(self._file).st_nlink == 0:
            raise FileNotFoundError(f"segment {self._path} was removed while it was written")
        self._synced_at = time.monotonic()
        self._synced_size = self._size
        self._unsynced_bytes = 0
        self._durable.extend(self._unsynced)
        self._unsynced.clear()

    def _repair(self) -> None:
        """Return to the durable state; everything after it will be written again."""
        self._next -= len(self._unsynced)
        self._unwritten.extendleft(reversed(self._unsynced))
        self._unsynced.clear()
        self._unsynced_bytes = 0
        try:
            os.truncate(self._path, min(self._synced_size, self._path.stat().st_size))
        except FileNotFoundError:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._begin_segment()
        else:
            self._use(self._path)
            sync(self.directory)


def _first_received(path: Path) -> float:
    """Return the Unix time of the first line of a non-empty segment, or the file's own time if that line cannot be read."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        return datetime.fromisoformat(decode(line).received_at).timestamp()
    except ValueError:
        return path.stat().st_mtime


def is_log(directory: Path) -> bool:
    """Whether a consumer ever wrote a log in `directory`."""
    return directory.is_dir() and ((directory / _LOCK).exists() or bool(list_segments(directory)))


def is_owned(directory: Path) -> bool:
    """Whether a consumer is writing the log in `directory` now."""
    return is_locked(directory / _LOCK)
