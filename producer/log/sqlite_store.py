"""The writing half of the embedded event log: its state, its transactions, opening and closing."""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from service.sqlite_file import BUSY_SECONDS, room_bytes

from .event_log import LogError, LogFull, LogInUse, Stored
from .sqlite_schema import FILE, begin, check_schema, connect, damaged, explain, find_or_create

LOCK = "producer.lock"
AHEAD = 1_000_000
"""The number of offsets that are reserved durably ahead of use, and the most that the log skips after a power failure."""

RESERVE_BYTES = 16 * 1024 * 1024
"""Space on the device that appends leave free (on a small device, a sixteenth), for removals and checkpoints."""

_ROOM_SECONDS = 0.1
_RETIRED_IDS = 1000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CHECKPOINT_PAGES = 2000
_CHECKPOINT_WAIT_MS = 200
_LARGEST_WAL_BYTES = 64 * 1024 * 1024
_CHECKPOINT_PAUSE_SECONDS = 30.0
"""The pause after a checkpoint that a reader blocked, because publishers wait for each one. It does not depend on the size: when the
reader has finished, SQLite overwrites the write-ahead log from its beginning, and the file keeps its size."""
_LOCK_ATTEMPTS = 5  # `is_owned` holds the lock for a moment, which must not keep a producer from starting


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

    connection: sqlite3.Connection

    def __init__(self, directory: Path, *, always: bool) -> None:
        """Open the log, and create it if missing; `always`: every append is synced. Raises LogInUse, LogError, OSError."""
        directory.mkdir(0o700, parents=True, exist_ok=True)
        self.path = directory / FILE
        self.always = always
        self.unsynced = False
        """Whether a power failure may lose a committed transaction."""
        self._lock = _lock(directory)
        self._retired: deque[int] = deque()
        self._room = 0
        self._room_known_until = 0.0
        self._wal = -1
        try:
            find_or_create(self.path)
            self.connection = connect(self.path)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    def __repr__(self) -> str:
        return f"<Store {self.path} next={self.next} topics={len(self.rows)} count={self.count}>"

    def _open(self) -> None:
        try:
            self.connection.execute("PRAGMA synchronous = FULL")
            self._full = True
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}").fetchone()
            self.connection.execute("PRAGMA cache_size = -16384")
            self.connection.execute("PRAGMA secure_delete = OFF").fetchone()  # some systems overwrite removed data by default
            check_schema(self.connection, self.path)
            self._load()
            self._begin()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except (TypeError, ValueError) as error:
            raise damaged(self.path, f"its tables are inconsistent ({error})") from error
        self._wal = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        self._look_at_wal_at = 0.0

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
            try:
                self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            except sqlite3.Error as error:
                raise explain(error, self.path) from error
            self._full = durable
        with begin(self.connection, self.path):
            yield
        self.unsynced = not durable

    def check_room(self, size: int) -> None:
        """Raise LogFull if the device has no space for `size` bytes of events beside the reserve. The device is asked only now and then."""
        size *= 2  # once in the write-ahead log, once in the file
        self._room -= size
        if self._room >= 0 and time.monotonic() < self._room_known_until:
            return
        self._room = self.room() - size
        if self._room < 0 and time.monotonic() >= self._room_known_until:
            with contextlib.suppress(LogError):
                self.checkpoint()
            self._room = self.room() - size
        self._room_known_until = time.monotonic() + _ROOM_SECONDS
        if self._room < 0:
            raise LogFull(f"{self.path}: no space left on the device but for a reserve; free some, or lower the retention")

    def room(self) -> int:
        """Return the bytes that may still be written beside the reserve. Raises LogError."""
        try:
            return room_bytes(self.path, self.connection, RESERVE_BYTES)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

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
            if not self.checkpoint():
                raise LogError(f"{self.path}: cannot sync: {error}") from error
        self.unsynced = False

    def keep_wal_small(self) -> None:
        """Truncate the write-ahead log when readers have long kept SQLite from reusing it. Raises LogError."""
        if time.monotonic() < self._look_at_wal_at:
            return
        self._look_at_wal_at = time.monotonic() + _ROOM_SECONDS
        if os.fstat(self._wal).st_size >= _LARGEST_WAL_BYTES and not self.checkpoint():
            self._look_at_wal_at = time.monotonic() + _CHECKPOINT_PAUSE_SECONDS

    def checkpoint(self) -> bool:
        """Move the write-ahead log into the file and empty it, unless a reader blocks that. Raises LogError."""
        try:
            self.connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")  # publishers wait too
            [(busy, _, _)] = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        return not busy

    def close(self) -> None:
        """Make everything durable and release the directory. Raises LogError."""
        try:
            try:
                with self.transaction(durable=True):
                    self.connection.execute("UPDATE state SET boot_id = '', reserved = 0, begin = ?", (self.next,))
            except LogError:  # no space to mark it as closed: the next start takes this for a crash
                self.sync()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self.connection.close()
        for handle in (self._wal, self._lock):
            if handle >= 0:
                os.close(handle)


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"unknown since {time.time_ns()}"  # so that every crash counts as a power failure


def _lock(directory: Path) -> int:
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempts_left in reversed(range(_LOCK_ATTEMPTS)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not attempts_left:
                os.close(handle)
                raise LogInUse(f"{directory}: another producer has this log open; stop it or set another PRODUCER_LOG_DIR") from None
        time.sleep(0.1)
    return handle
