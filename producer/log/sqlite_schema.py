"""The file of the embedded event log: how it is created, opened and recognized."""

import secrets
import string
from pathlib import Path

from service.sqlite_file import SqliteFile

from .event_log import LogDamaged, LogError, LogFull

FILE = "events.sqlite3"
APPLICATION_ID = 0x53534C47
"""A number in the file's header that marks it as ours."""
VERSION = 1
"""The format version in the file's header; it grows when older programs can no longer read the file."""

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


def find_or_create(path: Path) -> None:
    """Recognize the log, or create an empty one atomically. Raises LogError, OSError."""
    _KIND.find_or_create(path, [("INSERT INTO state VALUES (?, '', 0, 1, 0, 0, 0)", (_token(),))])


def damaged(path: Path, what: str) -> LogError:
    """Return the error for a file that cannot be used; it says what to do."""
    return LogDamaged(
        f"{path}: {what}; check it with `python -m producer check {path.parent}`, then restore the directory from a backup, "
        f"or move the files {path.name}* away to start an empty log"
    )


def _full(path: Path) -> LogError:
    return LogFull(f"{path}: no space left on the device; free some, or lower the retention")


def _token() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))


_KIND: SqliteFile[LogError] = SqliteFile(
    what="an event log",
    application_id=APPLICATION_ID,
    version=VERSION,
    schema=SCHEMA,
    damaged=damaged,
    too_new=LogDamaged,
    full=_full,
    failed=LogError,
    cached_statements=256,
)
connect, recognise, check_schema, explain, begin = _KIND.connect, _KIND.recognise, _KIND.check_schema, _KIND.explain, _KIND.transaction
