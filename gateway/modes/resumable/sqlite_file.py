"""The file of the embedded store of kept streams: its schema, upgrades, opening and bulk inserts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from service.storage.database import Database
from service.storage.file_format import FileFormat

from .store import StoreError, StoreInUse

FILE = "streams.sqlite3"
LOCK = "streams.lock"
APPLICATION_ID = 0x53534B53

LARGEST_WAL_BYTES = 64 * 1024 * 1024
_WAL_PART = 4
"""In a small store the write-ahead log gets at most one part in this number."""
_BYTES_AT_ONCE = 1024 * 1024

SCHEMA = {
    "streams": """CREATE TABLE streams (
        number INTEGER PRIMARY KEY, -- in the order in which they were opened
        id TEXT NOT NULL UNIQUE,
        instance TEXT NOT NULL, -- of the opening of the store that took it
        route BLOB NOT NULL,
        method BLOB NOT NULL,
        target BLOB NOT NULL,
        credentials BLOB NOT NULL,
        body BLOB NOT NULL,
        key BLOB NOT NULL,
        name BLOB NOT NULL,
        fields TEXT NOT NULL, -- a JSON array of pairs
        opened_at REAL NOT NULL,
        owner TEXT -- the client that it counts for, empty: nobody; NULL: its blocks are dropped, and all else but the id is empty
    )""",
    "streams_by_key": "CREATE INDEX streams_by_key ON streams (key, route, credentials) WHERE key != x''",
    "streams_by_name": "CREATE INDEX streams_by_name ON streams (name, route, credentials) WHERE name != x''",
    "streams_by_owner": "CREATE INDEX streams_by_owner ON streams (owner) WHERE owner IS NOT NULL",  # the oldest first
    "endings": """CREATE TABLE endings (
        stream INTEGER PRIMARY KEY,
        state TEXT NOT NULL,
        reason BLOB NOT NULL,
        ended_at REAL NOT NULL,
        keep_until REAL NOT NULL,
        bytes INTEGER NOT NULL, -- of all its blocks, dropped ones too
        dropped_at REAL, -- NULL: the blocks are there
        block_count INTEGER, -- NULL: not known, because the gateway was killed while it ran
        cost INTEGER -- what the blocks take in memory; NULL: not known
    )""",
    "endings_by_keep_until": "CREATE INDEX endings_by_keep_until ON endings (keep_until) WHERE dropped_at IS NULL",
    "endings_by_dropped_at": "CREATE INDEX endings_by_dropped_at ON endings (dropped_at) WHERE dropped_at IS NOT NULL",
    "parts": """CREATE TABLE parts (
        number INTEGER PRIMARY KEY,
        stream INTEGER NOT NULL,
        blocks BLOB NOT NULL
    )""",
    "parts_by_stream": "CREATE INDEX parts_by_stream ON parts (stream)",  # each entry ends with the row's number
}
"""A stream without an ending runs. Parts of all streams are stored in the order of their arrival: parts that are appended together then
go to the same few pages, which costs a fifth of storing each stream's parts side by side."""

_STREAMS_2 = SCHEMA["streams"].replace("        name BLOB NOT NULL,\n", "")
_FROM_1 = (
    "ALTER TABLE streams RENAME TO streams_1",
    "ALTER TABLE endings RENAME TO endings_1",
    _STREAMS_2,
    SCHEMA["endings"],
    "INSERT INTO streams SELECT number, id, instance, route, method, target, credentials, body, key, fields, opened_at, ''"
    " FROM streams_1 WHERE number NOT IN (SELECT stream FROM endings_1 WHERE dropped_at IS NOT NULL)",
    "INSERT INTO streams SELECT number, id, '', x'', x'', x'', x'', x'', x'', '[]', 0.0, NULL"
    " FROM streams_1 WHERE number IN (SELECT stream FROM endings_1 WHERE dropped_at IS NOT NULL)",
    "INSERT INTO endings SELECT stream, state, CASE WHEN length(reason) > 200 THEN x'' ELSE reason END, ended_at, keep_until, bytes,"
    " dropped_at, NULL, NULL FROM endings_1",
    "DROP TABLE streams_1",
    "DROP TABLE endings_1",
    *(SCHEMA[name] for name in ("streams_by_key", "streams_by_owner", "endings_by_keep_until", "endings_by_dropped_at")),
)
"""Tables are created again, not altered, so that their statements equal those of the schema. Older streams have no owner."""

_FROM_2 = (
    "ALTER TABLE streams RENAME TO streams_2",
    SCHEMA["streams"],
    "INSERT INTO streams SELECT number, id, instance, route, method, target, credentials, body, key, x'', fields, opened_at, owner"
    " FROM streams_2",
    "DROP TABLE streams_2",
    *(SCHEMA[name] for name in ("streams_by_key", "streams_by_name", "streams_by_owner")),
)
"""Older streams have no name."""


class StreamFile(Database[StoreError]):
    """A directory with kept streams, owned by one process and used by one thread at a time; every method may block on the disk."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        """Lock the directory and open the file; create both if missing. Raises StoreError.

        All files together may take about `most_bytes` of the device.
        """
        wal_bytes = min(LARGEST_WAL_BYTES, most_bytes // _WAL_PART)
        self.most_bytes = most_bytes - wal_bytes
        """The largest size of the file."""
        pragmas = ("synchronous = NORMAL", "cache_size = -8192", f"journal_size_limit = {wal_bytes // 4}")
        try:
            super().__init__(FORMAT, directory, wal_bytes=wal_bytes, pragmas=pragmas)
        except OSError as error:
            raise StoreError(
                f"{directory}: streams cannot be kept there: {error}; make it writable or choose another GATEWAY_DATA_DIR"
            ) from error
        self._wal = directory / f"{FILE}-wal"

    def insert_parts(self, parts: Mapping[int, Sequence[bytes]]) -> None:
        """Insert parts by the numbers of their streams, about `_BYTES_AT_ONCE` with each call, because they are copied twice.

        Raises sqlite3.Error.
        """
        values: list[object] = []
        size = 0
        for stream, pieces in parts.items():
            values += (stream, b"".join(pieces))
            size += sum(map(len, pieces))
            if size >= _BYTES_AT_ONCE:
                self.insert("INSERT INTO parts (stream, blocks)", 2, values)
                values, size = [], 0
        self.insert("INSERT INTO parts (stream, blocks)", 2, values)

    def keep_wal_small(self, adding: int) -> None:
        """Truncate the write-ahead log if it has no room for `adding` bytes, because readers have long kept SQLite from reusing it.

        Raises StoreError.
        """
        with self.errors():
            size = self._wal.stat().st_size
        if size and size + adding > self.wal_bytes:
            self.checkpoint()


def full(path: Path) -> StoreError:
    """Return the error for a full device."""
    return StoreError(f"{path}: no room left on the device; free some, or lower retain_seconds")


def damaged(path: Path, what: str) -> StoreError:
    """Return the error for an unusable file, with advice."""
    return StoreError(
        f"{path}: {what}; stop the gateway and restore {path.parent} from a backup, or move the files {path.name}* away: "
        "the gateway then begins without the streams in them"
    )


def _in_use(directory: Path) -> StoreError:
    return StoreInUse(f"{directory}: another gateway keeps its streams there; stop it or choose another GATEWAY_DATA_DIR")


FORMAT: FileFormat[StoreError] = FileFormat(
    file=FILE,
    lock=LOCK,
    what="a store of streams",
    application_id=APPLICATION_ID,
    version=3,
    schema=SCHEMA,
    damaged=damaged,
    too_new=StoreError,
    in_use=_in_use,
    full=full,
    failed=StoreError,
    upgrades={1: _FROM_1, 2: _FROM_2},
)
