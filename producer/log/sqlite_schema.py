"""The file of the embedded event log: how it is created, opened and recognized."""

import secrets
import string
from collections.abc import Sequence
from pathlib import Path

from service.storage.file_format import FileFormat

from .event_log import LogDamaged, LogError, LogFull, LogInUse

FILE = "events.sqlite3"
LOCK = "producer.lock"

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


def first_rows() -> Sequence[tuple[str, Sequence[object]]]:
    """Return the statement that makes a new file an empty log, with its values."""
    epoch = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
    return [("INSERT INTO state VALUES (?, '', 0, 1, 0, 0, 0)", (epoch,))]


def damaged(path: Path, what: str) -> LogError:
    """Return the error for a file that cannot be used; it says what to do."""
    return LogDamaged(
        f"{path}: {what}; check it with `python -m producer check {path.parent}`, then restore the directory from a backup, "
        f"or move the files {path.name}* away to start an empty log"
    )


def _full(path: Path) -> LogError:
    return LogFull(f"{path}: no space left on the device; free some, or lower the retention")


def _in_use(directory: Path) -> LogError:
    return LogInUse(f"{directory}: another producer has this log open; stop it or set another PRODUCER_LOG_DIR")


FORMAT: FileFormat[LogError] = FileFormat(
    file=FILE,
    lock=LOCK,
    what="an event log",
    application_id=0x53534C47,
    version=1,
    schema=SCHEMA,
    damaged=damaged,
    too_new=LogDamaged,
    in_use=_in_use,
    full=_full,
    failed=LogError,
    cached_statements=256,
)
