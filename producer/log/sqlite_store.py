"""The writing half of the embedded event log: its state, its transactions, opening and closing."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.storage.database import Database

from .event_log import LogError, LogFull, Stored
from .sqlite_schema import FORMAT, damaged, first_rows

AHEAD = 1_000_000
"""The number of offsets that are reserved durably ahead of use, and the most that the log skips after a power failure."""

_COMMIT_BYTES = 64 * 1024  # pages that each transaction writes beside the events
_ROOM_SECONDS = 0.1
_RETIRED_IDS = 1000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CHECKPOINT_WAIT_SECONDS = 0.2  # publishers wait too
_LARGEST_WAL_BYTES = 64 * 1024 * 1024
_CHECKPOINT_PAUSE_SECONDS = 30.0
"""The pause after a checkpoint that a reader blocked, because publishers wait for each one. It does not depend on the size: when the
reader has finished, SQLite overwrites the write-ahead log from its beginning, and the file keeps its size."""


@dataclass(frozen=True, slots=True)
class Row:
    """The file's state of a topic."""

    id: int
    name: str
    count: int = 0
    bytes: int = 0
    last: int = 0
    gone_through: int = 0


@dataclass(slots=True)
class Committed:
    """The changes of one transaction."""

    last: int
    """The newest offset in use."""
    events: list[Stored] = field(default_factory=list)
    rows: dict[str, Row | None] = field(default_factory=dict)
    """The topics that changed, by name; None: forgotten."""
    removed: int = 0
    """The number of removed events."""


class Store:
    """A log directory, owned by one process and used by one thread at a time; every method may block on the disk.

    Its attributes show the last committed transaction; writers update them after the commit.
    """

    def __init__(self, directory: Path, *, always: bool) -> None:
        """Open the log, and create it if missing; `always`: every append is synced. Raises LogInUse, LogError, OSError."""
        self.always = always
        self.unsynced = False
        """Whether a power failure may lose a committed transaction."""
        self.file = Database(
            FORMAT,
            directory,
            wal_bytes=_LARGEST_WAL_BYTES,
            pragmas=("synchronous = FULL", "cache_size = -16384"),
            first=first_rows(),
            checkpoint_wait_seconds=_CHECKPOINT_WAIT_SECONDS,
        )
        self.path, self.connection = self.file.path, self.file.connection
        self._full = True
        self._retired: deque[int] = deque()
        self._room = 0
        self._room_known_until = 0.0
        self._look_at_wal_at = 0.0
        try:
            with self.file.errors():
                self._load()
                self._begin()
                self._wal = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        except (TypeError, ValueError) as error:
            self.file.close()
            raise damaged(self.path, f"its tables are inconsistent ({error})") from error
        except BaseException:
            self.file.close()
            raise

    def __repr__(self) -> str:
        return f"<Store {self.path} next={self.next} topics={len(self.rows)} count={self.count}>"

    def _load(self) -> None:
        [state] = self.connection.execute("SELECT * FROM state").fetchall()
        self.epoch: str
        self.time_ms: int
        self.epoch, self._boot_id, self.reserved, begin, self.gone_through, self.gone_ms, self.forgotten_through = state
        self.rows = {name: Row(id, name, *rest) for id, name, *rest in self.connection.execute("SELECT * FROM topics")}
        self.names = {row.id: row.name for row in self.rows.values()}
        """Every id that a reader may meet; shared with the readers."""
        self.dropped: list[int] = [id for (id,) in self.connection.execute("SELECT id FROM dropped ORDER BY id")]
        made = self.connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'topics'").fetchone()
        self.next_id: int = made[0] + 1 if made else 1
        self.count = sum(row.count for row in self.rows.values())
        self.bytes = sum(row.bytes for row in self.rows.values())
        newest, self.time_ms = self.connection.execute("SELECT offset, time_ms FROM events ORDER BY offset DESC LIMIT 1").fetchone() or (
            0,
            0,
        )
        if newest < (last := max((row.last for row in self.rows.values()), default=0)):
            raise damaged(self.path, f"its newest event is {newest}, but should be {last}")
        if max(newest, self.gone_through) < begin - 1:
            raise damaged(self.path, f"its newest event is {newest}, but was {begin - 1} when the log was opened")
        self.next = max(newest, self.gone_through) + 1
        self.time_ms = max(self.time_ms, self.gone_ms)

    def _begin(self) -> None:
        """Record that the log is open, and skip the offsets that a power failure may have taken back."""
        boot_id = _read_boot_id()
        if self.reserved >= self.next and self._boot_id and self._boot_id != boot_id:
            self.next = self.reserved + 1
            self.gone_through = self.forgotten_through = self.reserved
        self.reserved = 0 if self.always else self.next - 1 + AHEAD
        with self.transaction(durable=True):
            self.connection.execute(
                "UPDATE state SET boot_id = ?, reserved = ?, begin = ?, gone_through = ?, forgotten_through = ?",
                (boot_id, self.reserved, self.next, self.gone_through, self.forgotten_through),
            )

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        """Commit at the end, or roll back on an error. Raises LogError."""
        if durable != self._full:
            with self.file.errors():
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._full = durable
        with self.file.transaction():
            yield
        self.unsynced = not durable

    def check_room(self, size: int) -> None:
        """Raise LogFull if the device has no space for `size` bytes of events beside the reserve. The device is asked only now and then."""
        size = 2 * size + _COMMIT_BYTES  # the events are written to the write-ahead log, and then to the file
        self._room -= size
        if self._room >= 0 and time.monotonic() < self._room_known_until:
            return
        self._room = self.file.room() - size
        if self._room < 0 and time.monotonic() >= self._room_known_until:
            with contextlib.suppress(LogError):
                self.file.checkpoint()
            self._room = self.file.room() - size
        self._room_known_until = time.monotonic() + _ROOM_SECONDS
        if self._room < 0:
            raise LogFull(f"{self.path}: no space left on the device but for a reserve; free some, or lower the retention")

    def retire(self, id: int) -> None:
        """Forget the name of an id that no event has any more, after a delay: a slow reader may be about to look it up."""
        self._retired.append(id)
        if len(self._retired) > _RETIRED_IDS:
            self.names.pop(self._retired.popleft(), None)

    def sync(self) -> None:
        """Make every committed transaction durable. Raises LogError."""
        try:
            os.fsync(self._wal)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages, and the next fsync proves nothing. A checkpoint copies them.
            if not self.file.checkpoint():
                raise LogError(f"{self.path}: cannot sync: {error}") from error
        self.unsynced = False

    def keep_wal_small(self) -> None:
        """Truncate the write-ahead log when readers have long kept SQLite from reusing it. Raises LogError."""
        if time.monotonic() < self._look_at_wal_at:
            return
        self._look_at_wal_at = time.monotonic() + _ROOM_SECONDS
        if os.fstat(self._wal).st_size >= self.file.wal_bytes and not self.file.checkpoint():
            self._look_at_wal_at = time.monotonic() + _CHECKPOINT_PAUSE_SECONDS

    def close(self) -> None:
        """Make everything durable and release the directory. Raises LogError."""
        try:
            try:
                with self.transaction(durable=True):
                    self.connection.execute("UPDATE state SET boot_id = '', reserved = 0, begin = ?", (self.next,))
            except LogError:  # no space to mark it as closed: the next start takes this for a crash
                self.sync()
        finally:
            os.close(self._wal)
            self.file.close()


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"unknown since {time.time_ns()}"  # so that every crash counts as a power failure
