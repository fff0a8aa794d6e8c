"""The file of the embedded event log: how it is made, opened and recognised."""

import os
import secrets
import sqlite3
import string
from pathlib import Path

from .event_log import LogDamaged, LogError, LogFull

FILE = "events.sqlite3"
APPLICATION_ID = 0x53534C47
"""In the file's header, by which the file is known as ours."""
VERSION = 1
"""In the file's header too; grows when an older program could no longer read the file."""
BUSY_SECONDS = 10.0

SCHEMA = {
    "state": """CREATE TABLE state (
        epoch TEXT NOT NULL,
        boot_id TEXT NOT NULL, -- of the boot in which the log was opened and not yet closed, else empty
        reserved INTEGER NOT NULL, -- greater offsets were never given out; 0 when all that were given out are durable
        begin INTEGER NOT NULL, -- offsets from here on are free
        gone_through INTEGER NOT NULL, -- the greatest of all topics
        gone_ms INTEGER NOT NULL, -- no event that is gone from before the first was appended later
        forgotten_through INTEGER NOT NULL -- the greatest gone_through of topics that have no row any more
    )""",
    "topics": """CREATE TABLE topics (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        count INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        last INTEGER NOT NULL,
        gone_through INTEGER NOT NULL
    )""",
    "dropped": "CREATE TABLE dropped (id INTEGER PRIMARY KEY)",
    "events": """CREATE TABLE events (
        offset INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        block BLOB NOT NULL
    )""",
    "events_by_topic": "CREATE INDEX events_by_topic ON events (topic)",  # each entry ends with the row's offset, and is in that order
    "keys": """CREATE TABLE keys (
        number INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL,
        name TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        time_ms INTEGER NOT NULL,
        UNIQUE (topic, name)
    )""",
}
"""`dropped` has the ids of topics whose events and keys are still being removed; their names have a new id, or none."""


def connect(path: Path, *, timeout: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Opens the file for any one thread at a time; transactions begin and end where the caller says so."""
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False, cached_statements=256)


def create(path: Path) -> None:
    """Makes an empty log, whole or not at all. Raises LogError, OSError."""
    fresh = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(fresh.name + "*"):
        leftover.unlink()
    connection = connect(fresh)
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("BEGIN")
        for statement in SCHEMA.values():
            connection.execute(statement)
        connection.execute("INSERT INTO state VALUES (?, '', 0, 1, 0, 0, 0)", (_token(),))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.Error as error:
        raise explain(error, path) from error
    finally:
        connection.close()
    _sync(fresh)
    fresh.rename(path)
    _sync(path.parent)


def recognise(path: Path) -> None:
    """Looks at the file's header alone. Raises LogDamaged when it is not a log that this program can read, OSError."""
    with path.open("rb") as file:  # not while a connection is open: closing any handle of the file would let go of SQLite's locks
        header = file.read(100)
    application, version = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise damaged(path, f"its first {len(header)} bytes are not those of an event log")
    if application != APPLICATION_ID:
        raise damaged(path, f"it is a database of another program (application id {application:#x})")
    if version > VERSION:
        raise LogDamaged(f"{path}: it has format {version}, and this program knows formats up to {VERSION}; use the newer program again")
    if version != VERSION:
        raise damaged(path, f"it has format {version}, which never was")


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raises LogDamaged when the tables are not those that `create` makes."""
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'").fetchall())
    different = sorted(name for name in found.keys() | SCHEMA.keys() if found.get(name) != SCHEMA.get(name))
    if different:
        raise damaged(path, f"{different[0]!r} is not as this program makes it")


def damaged(path: Path, what: str) -> LogDamaged:
    """The error for a file that cannot be used, with what to do about it."""
    return LogDamaged(
        f"{path}: {what}; look at it with `python -m producer check {path.parent}`, then restore the directory from a backup, "
        f"or move the files {path.name}* away to begin an empty log"
    )


def explain(error: sqlite3.Error, path: Path) -> LogError:
    """Gives what an error of SQLite means for the log."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and room(path) < 1024 * 1024):
        return LogFull(f"{path}: no room left on the device; free some, or lower the retention")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, f"it is damaged ({error})")
    return LogError(f"{path}: {error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})")


def room(path: Path) -> int:
    """Bytes that are free on the device for this process."""
    device = os.statvfs(path.parent)
    return device.f_bavail * device.f_frsize


def _token() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
