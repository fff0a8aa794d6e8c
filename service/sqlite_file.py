"""A SQLite file that one service owns: made whole or not at all, known by its header, and held to its schema."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

BUSY_SECONDS = 10.0

_HEADER_BYTES = 100
_MODE = 0o600  # events and answers are for this service alone; SQLite gives its other files the same permissions
_LITTLE_ROOM_BYTES = 1024 * 1024  # with less than that an I/O error is taken for a full device

E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class SqliteFile(Generic[E]):
    """One kind of file, and the errors that its service raises for it; every function may block on the disk."""

    what: str
    """What it is to people, such as `an event log`."""
    application_id: int
    """In the file's header, by which the file is known as the service's own."""
    version: int
    """In the file's header too; grows when an older program could no longer read the file."""
    schema: Mapping[str, str]
    """The statement that makes each table and index, by name."""
    damaged: Callable[[Path, str], E]
    """The error for a file that cannot be used, and why; it says what to do about it."""
    too_new: Callable[[str], E]
    full: Callable[[Path], E]
    """The error for a device without room."""
    failed: Callable[[str], E]
    """The error for all else."""
    cached_statements: int = 128

    def connect(self, path: Path, *, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
        """Opens the file for any one thread at a time; transactions begin and end where the caller says so."""
        return sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=self.cached_statements
        )

    def find_or_create(self, path: Path, first: Sequence[tuple[str, Sequence[object]]] = ()) -> None:
        """Recognises the file, or makes it with the rows that `first` inserts. Raises the service's errors, OSError."""
        if path.exists():
            self.recognise(path)
        elif path.with_name(f"{path.name}-wal").exists():  # SQLite would take it for the new file's
            raise self.damaged(path, "it is gone, while its write-ahead log is there")
        else:
            self._create(path, first)

    def _create(self, path: Path, first: Sequence[tuple[str, Sequence[object]]]) -> None:
        fresh = path.with_name(path.name + ".new")
        for leftover in path.parent.glob(fresh.name + "*"):
            leftover.unlink()
        fresh.touch(_MODE)
        connection = self.connect(fresh)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("BEGIN")
            for statement in self.schema.values():
                connection.execute(statement)
            for insert, values in first:
                connection.execute(insert, values)
            connection.execute(f"PRAGMA application_id = {self.application_id}")
            connection.execute(f"PRAGMA user_version = {self.version}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.Error as error:
            raise self.explain(error, path) from error
        finally:
            connection.close()
        sync(fresh)
        fresh.rename(path)
        sync(path.parent)

    def recognise(self, path: Path) -> None:
        """Looks at the file's header alone. Raises the service's error when it is none that this program can read, OSError."""
        with path.open("rb") as file:  # not while a connection is open: closing any handle of the file would let go of SQLite's locks
            header = file.read(_HEADER_BYTES)
        application, version = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
        if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\0"):
            raise self.damaged(path, f"its first {len(header)} bytes are not those of {self.what}")
        if application != self.application_id:
            raise self.damaged(path, f"it is a database of another program (application id {application:#x})")
        if version > self.version:
            known = f"this program knows formats up to {self.version}"
            raise self.too_new(f"{path}: it has format {version}, and {known}; use the newer program again")
        if version != self.version:
            raise self.damaged(path, f"it has format {version}, which never was")

    def check_schema(self, connection: sqlite3.Connection, path: Path) -> None:
        """Raises the service's error when the tables are not those that the schema makes, sqlite3.Error."""
        named = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        found = dict(connection.execute(named).fetchall())
        different = sorted(name for name in found.keys() | self.schema.keys() if found.get(name) != self.schema.get(name))
        if different:
            raise self.damaged(path, f"{different[0]!r} is not as this program makes it")

    @contextmanager
    def transaction(self, connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
        """Commits at the end, or rolls back. Raises the service's errors."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self.explain(error, path) from error
            raise

    def explain(self, error: sqlite3.Error, path: Path) -> E:
        """Gives what an error of SQLite means for the service."""
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free_bytes(path) < _LITTLE_ROOM_BYTES):
            return self.full(path)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damaged(path, f"it is damaged ({error})")
        return self.failed(f"{path}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})")


def free_bytes(path: Path) -> int:
    """Gives how much is free on the device of a file, for this process."""
    device = os.statvfs(path.parent)
    return device.f_bavail * device.f_frsize


def room_bytes(path: Path, connection: sqlite3.Connection, most_reserve_bytes: int) -> int:
    """Gives how much may still be written to a file beside a reserve, which on a small device is a sixteenth of it.

    What the file grows by when its write-ahead log is moved into it counts as written. Raises OSError, sqlite3.Error.
    """
    device = os.statvfs(path.parent)
    [(pages,), (page_size,)] = (connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "page_size"))
    unwritten: int = max(0, pages * page_size - path.stat().st_size)
    return device.f_bavail * device.f_frsize - unwritten - min(most_reserve_bytes, device.f_blocks * device.f_frsize // 16)


def sync(path: Path) -> None:
    """Makes a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
