"""The format of a SQLite file: created atomically, recognized by its header, and checked against its schema."""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

BUSY_SECONDS = 10.0

_HEADER_BYTES = 100
_MODE = 0o600  # events and answers are for this service alone; SQLite gives its other files the same permissions
_LITTLE_ROOM_BYTES = 1024 * 1024  # with less free space, an I/O error counts as a full device

E = TypeVar("E", bound=Exception)


@dataclass(frozen=True, slots=True)
class FileFormat(Generic[E]):
    """One kind of file, and the errors that its service raises for it. Every method may block on the disk."""

    file: str
    """The name of the file in its directory."""
    lock: str
    """The name of the file that locks the directory."""
    what: str
    """What users call it, such as `an event log`."""
    application_id: int
    """A number in the file's header that marks it as the service's own."""
    version: int
    """The format version in the file's header; it grows when older programs can no longer read the file."""
    schema: Mapping[str, str]
    """The statement that creates each table and index, by name."""
    damaged: Callable[[Path, str], E]
    """The error for a file that cannot be used, with the reason; it says what to do."""
    too_new: Callable[[str], E]
    in_use: Callable[[Path], E]
    """The error for a directory that another process has locked."""
    full: Callable[[Path], E]
    """The error for a full device."""
    failed: Callable[[str], E]
    """The error for any other failure."""
    cached_statements: int = 128
    upgrades: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """The statements that upgrade a file to the next version, by its version."""

    def connect(self, path: Path, *, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
        """Open the file for one thread at a time; the caller begins and ends transactions.

        Raises the service's error if the schema is damaged in a way that Python cannot report: SQLite's message quotes bytes of it.
        """
        connection = sqlite3.connect(
            path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=self.cached_statements
        )
        try:
            with contextlib.suppress(sqlite3.Error):  # the caller's first statement raises it again
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except UnicodeDecodeError as error:
            connection.close()
            raise self.damaged(path, f"its schema is damaged ({error.object!r})") from error
        return connection

    def find_or_create(self, path: Path, first: Sequence[tuple[str, Sequence[object]]] = ()) -> None:
        """Recognize the file, or create it with the rows that `first` inserts. Raises the service's errors, OSError."""
        if path.exists():
            self.recognise(path)
        elif path.with_name(f"{path.name}-wal").exists():  # SQLite would apply it to the new file
            raise self.damaged(path, "it is missing, but its write-ahead log exists")
        else:
            self._create(path, first)

    def _create(self, path: Path, first: Sequence[tuple[str, Sequence[object]]]) -> None:
        fresh = path.with_name(path.name + ".new")
        for leftover in path.parent.glob(fresh.name + "*"):
            leftover.unlink()
        fresh.touch(_MODE)
        with contextlib.closing(self.connect(fresh)) as connection, self.errors(path):
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
        sync(fresh)
        fresh.rename(path)
        sync(path.parent)

    def recognise(self, path: Path) -> None:
        """Check the file's header only. Raises the service's error if this program cannot read the file, OSError."""
        with path.open("rb") as file:  # before any connection: closing a handle of the file would release SQLite's locks
            header = file.read(_HEADER_BYTES)
        application, version = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
        if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\0"):
            raise self.damaged(path, f"its first {len(header)} bytes are not those of {self.what}")
        if application != self.application_id:
            raise self.damaged(path, f"it is a database of another program (application id {application:#x})")
        if version > self.version:
            known = f"this program knows formats up to {self.version}"
            raise self.too_new(f"{path}: it has format {version}, and {known}; use the newer program again")
        if version != self.version and version not in self.upgrades:
            raise self.damaged(path, f"it has format {version}, which no program ever wrote")

    def upgrade(self, connection: sqlite3.Connection, path: Path) -> None:
        """Turn a file of an older version into one of this version, in one transaction. Raises the service's errors.

        The version is read through the connection, because a newer one than the file's header may still be in the write-ahead log.
        """
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version not in self.upgrades:
            return
        with self.transaction(connection, path):
            while version in self.upgrades:
                for statement in self.upgrades[version]:
                    connection.execute(statement)
                version += 1
            connection.execute(f"PRAGMA user_version = {version}")

    def check_schema(self, connection: sqlite3.Connection, path: Path) -> None:
        """Compare the tables with the schema. Raises the service's error if they differ, sqlite3.Error."""
        named = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        found = dict(connection.execute(named).fetchall())
        different = sorted(name for name in found.keys() | self.schema.keys() if found.get(name) != self.schema.get(name))
        if different:
            raise self.damaged(path, f"{different[0]!r} differs from this program's schema")

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection, path: Path, *, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Commit at the end, or roll back on an error. With `BEGIN`, all statements read the same snapshot. Raises the service's errors."""
        try:
            connection.execute(begin)
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self.explain(error, path) from error
            raise

    @contextlib.contextmanager
    def errors(self, path: Path) -> Iterator[None]:
        """Raise the service's errors in place of those of SQLite and of the system."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.explain(error, path) from error
        except OSError as error:
            raise self.failed(f"{path}: {error}") from error

    def explain(self, error: sqlite3.Error, path: Path) -> E:
        """Return the service's error for an error of SQLite."""
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free_bytes(path) < _LITTLE_ROOM_BYTES):
            return self.full(path)
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damaged(path, f"it is damaged ({error})")
        return self.failed(f"{path}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})")


def free_bytes(path: Path) -> int:
    """Return the free bytes on the device of a file, for this process."""
    device = os.statvfs(path.parent)
    return device.f_bavail * device.f_frsize


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
