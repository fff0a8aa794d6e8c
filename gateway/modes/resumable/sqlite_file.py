"""The file of the embedded store of kept streams: how it is made, opened, recognised, written to and let go."""

import fcntl
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from service.sqlite_file import SqliteFile, room_bytes

from .store import StoreError, StoreInUse

FILE = "streams.sqlite3"
LOCK = "streams.lock"
APPLICATION_ID = 0x53534B53
"""In the file's header, by which the file is known as ours."""
VERSION = 2
"""In the file's header too; grows when an older program could no longer read the file."""

RESERVE_BYTES = 16 * 1024 * 1024
"""New streams and blocks leave so much of the device free (of a small one, a sixteenth), for endings, removals and checkpoints."""
LARGEST_WAL_BYTES = 64 * 1024 * 1024
_WAL_PART = 4
"""The write-ahead log gets at most this part of a small store."""

PAGE_BYTES = 4096
_CHECKPOINT_PAGES = 2000
_ROWS_AT_ONCE = 256
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
        fields TEXT NOT NULL, -- a JSON array of pairs
        opened_at REAL NOT NULL,
        owner TEXT -- the client that it counts for, empty: nobody; NULL: its blocks are dropped, and all else but the id is empty
    )""",
    "streams_by_key": "CREATE INDEX streams_by_key ON streams (key, route, credentials) WHERE key != x''",
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
"""A stream without an ending runs. Parts stand in the order in which they came, whatever their stream: what is appended together then
goes to the same few pages, which costs a fifth of putting each stream's parts side by side."""

_FROM_1 = (
    "ALTER TABLE streams RENAME TO streams_1",
    "ALTER TABLE endings RENAME TO endings_1",
    SCHEMA["streams"],
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
"""Tables are made anew and not altered, so that their statements are those of the schema. Streams of before are nobody's."""


class StreamFile:
    """A directory with kept streams, owned by one process and used by one thread at a time; every method may block on the disk."""

    connection: sqlite3.Connection

    def __init__(self, directory: Path, most_bytes: int) -> None:
        """Takes the directory's lock and opens the file; makes both if need be. Raises StoreError.

        All its files together are to take `most_bytes` of the device, about.
        """
        self.path = directory / FILE
        self.wal_bytes = min(LARGEST_WAL_BYTES, most_bytes // _WAL_PART)
        """How large the write-ahead log may get."""
        self.most_bytes = most_bytes - self.wal_bytes
        """How large the file may get."""
        self._wal = directory / f"{FILE}-wal"
        try:
            directory.mkdir(0o700, parents=True, exist_ok=True)
            self._lock = _lock(directory)
        except OSError as error:
            raise StoreError(
                f"{directory}: streams cannot be kept there: {error}; make it writable or choose another GATEWAY_DATA_DIR"
            ) from error
        try:
            _KIND.find_or_create(self.path)
            self.connection = connect(self.path)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError):
                raise StoreError(f"{self.path}: {error}") from error
            raise
        try:
            self.connection.execute("PRAGMA synchronous = NORMAL")
            checkpoint_pages = min(_CHECKPOINT_PAGES, self.wal_bytes // 2 // PAGE_BYTES)
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages}").fetchone()
            self.connection.execute("PRAGMA cache_size = -8192")
            self.connection.execute("PRAGMA secure_delete = OFF").fetchone()  # some systems' default is to overwrite all that is removed
            self.connection.execute(f"PRAGMA journal_size_limit = {self.wal_bytes // 4}").fetchone()
            _KIND.upgrade(self.connection, self.path)
            check_schema(self.connection, self.path)
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self.path) from error
            raise

    def __repr__(self) -> str:
        return f"<StreamFile {self.path}>"

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Commits at the end, or rolls back. Raises StoreError."""
        return _KIND.transaction(self.connection, self.path)

    def insert(self, into: str, columns: int, values: Sequence[object]) -> None:
        """Inserts many rows with few statements: each gives up the interpreter's lock, and a busy event loop is slow to give it back.
        Powers of two, so that few different statements have to be prepared."""
        row = "(" + ", ".join("?" * columns) + ")"
        done, total = 0, len(values) // columns
        while done < total:
            count = min(_ROWS_AT_ONCE, 1 << (total - done).bit_length() - 1)
            some = values[done * columns : (done + count) * columns]
            self.connection.execute(f"INSERT INTO {into} VALUES {', '.join([row] * count)}", some)  # noqa: S608  # a table's name and question marks
            done += count

    def insert_parts(self, parts: Mapping[int, Sequence[bytes]]) -> None:
        """Inserts parts by the numbers of their streams, each of some pieces, about `_BYTES_AT_ONCE` with each call: so much is copied
        here, and once more by SQLite."""
        values: list[object] = []
        size = 0
        for stream, pieces in parts.items():
            values += (stream, b"".join(pieces))
            size += sum(map(len, pieces))
            if size >= _BYTES_AT_ONCE:
                self.insert("parts (stream, blocks)", 2, values)
                values, size = [], 0
        self.insert("parts (stream, blocks)", 2, values)

    def room(self) -> int:
        """Gives the bytes that may still be written beside the reserve. Raises StoreError."""
        try:
            return room_bytes(self.path, self.connection, RESERVE_BYTES)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        except OSError as error:
            raise StoreError(f"{self.path}: {error}") from error

    def pages(self) -> tuple[int, int]:
        """Return how many bytes the pages of the file have, and how many of these are unused: they are taken before the file grows.
        Raises StoreError."""
        try:
            [[pages], [unused]] = (self.connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "freelist_count"))
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        return pages * PAGE_BYTES, unused * PAGE_BYTES

    def checkpoint(self) -> None:
        """Moves the write-ahead log into the file and empties it, unless a reader is in the way. Raises StoreError."""
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def keep_wal_small(self, adding: int) -> None:
        """Begin the write-ahead log anew if it has no room for `adding` bytes, because readers have long kept SQLite from doing so by
        itself. Raises StoreError."""
        try:
            size = self._wal.stat().st_size
        except OSError as error:
            raise StoreError(f"{self._wal}: {error}") from error
        if size and size + adding > self.wal_bytes:
            self.checkpoint()

    def close(self) -> None:
        """Lets go of the file and of the directory; the last connection to go puts the write-ahead log into the file."""
        self.connection.close()
        os.close(self._lock)


def full(path: Path) -> StoreError:
    """The error for a device without room."""
    return StoreError(f"{path}: no room left on the device; free some, or lower retain_seconds")


def damaged(path: Path, what: str) -> StoreError:
    """The error for a file that cannot be used, with what to do about it."""
    return StoreError(
        f"{path}: {what}; stop the gateway and restore {path.parent} from a backup, or move the files {path.name}* away: "
        "the gateway then begins without the streams in them"
    )


def _lock(directory: Path) -> int:
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StoreInUse(f"{directory}: another gateway keeps its streams there; stop it or choose another GATEWAY_DATA_DIR") from None
    return handle


_KIND: SqliteFile[StoreError] = SqliteFile(
    what="a store of streams",
    application_id=APPLICATION_ID,
    version=VERSION,
    schema=SCHEMA,
    damaged=damaged,
    too_new=StoreError,
    full=full,
    failed=StoreError,
    upgrades={1: _FROM_1},
)
connect, check_schema, explain = _KIND.connect, _KIND.check_schema, _KIND.explain
