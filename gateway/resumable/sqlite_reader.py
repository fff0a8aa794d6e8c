"""What the embedded store of kept streams reads, each in one transaction."""

import json
import sqlite3
from pathlib import Path

from eventstream import split_blocks

from ..fan_out.stamping import read_id
from .sqlite_file import damaged
from .sqlite_writer import decode, encode
from .store import EXPIRED, RUNNING, StoredStream, StreamHead

_STREAM = (
    "SELECT number, route, method, target, credentials, body, key, fields, opened_at, state, reason, ended_at, bytes, dropped_at"
    " FROM streams LEFT JOIN endings ON stream = number WHERE id = ?"
)
# One statement that gives much: each row gives up the interpreter's lock, and a busy event loop is slow to give it back.
_BLOCKS = "SELECT CAST(group_concat(blocks, '') AS BLOB) FROM (SELECT blocks FROM parts WHERE stream = ? ORDER BY number)"
_BY_KEY = (
    "SELECT id FROM streams LEFT JOIN endings ON stream = number"
    " WHERE key = ? AND key != x'' AND route = ? AND credentials = ? AND dropped_at IS NULL ORDER BY number DESC LIMIT 1"
)
# By the index of those whose blocks are there: those of the last minutes, with no index of their own to pay for at each new stream.
_LIKE = (
    "SELECT number, id, target FROM endings INDEXED BY endings_by_keep_until JOIN streams ON number = stream"
    " WHERE dropped_at IS NULL AND credentials = :credentials AND body = :body AND route = :route AND method = :method"
    " AND (credentials != x'' OR key = :key AND key != x'') ORDER BY key = :key AND key != x'' DESC, number DESC LIMIT 50"
)
_PARTS_WITH = "SELECT blocks FROM parts WHERE stream = ? AND instr(blocks, ?)"


def load(connection: sqlite3.Connection, path: Path, id: str) -> StoredStream | None:
    """Return a stream with its blocks, None if there is none. Raises StoreError if blocks are missing, sqlite3.Error."""
    row = connection.execute(_STREAM, (id,)).fetchone()
    if row is None:
        return None
    number, route, method, target, credentials, body, key, fields, opened_at, state, reason, ended_at, size, dropped_at = row
    pairs = [(name, value) for name, value in json.loads(fields)]
    head = StreamHead(id, decode(route), decode(method), decode(target), credentials, body, decode(key), pairs, opened_at)
    if dropped_at is not None:
        return StoredStream(head, EXPIRED, f"{state}: {decode(reason)}" if reason else state, b"", ended_at)
    blocks = connection.execute(_BLOCKS, (number,)).fetchone()[0] or b""
    if state is None:
        return StoredStream(head, RUNNING, "", blocks, 0.0)
    if len(blocks) != size:
        raise damaged(path, f"stream {id!r} has {len(blocks)} bytes, and should have {size}")
    return StoredStream(head, state, decode(reason), blocks, ended_at)


def find_key(connection: sqlite3.Connection, route: str, credentials: bytes, key: str) -> str | None:
    """Return the id of the newest stream with this Idempotency-Key. Raises sqlite3.Error."""
    row = connection.execute(_BY_KEY, (encode(key), encode(route), credentials)).fetchone()
    return None if row is None else str(row[0])


def find_event(connection: sqlite3.Connection, head: StreamHead, event_id: str) -> str | None:
    """Return the id of a stream that a request may continue behind an event. Raises sqlite3.Error."""
    asked = {"route": encode(head.route), "method": encode(head.method), "key": encode(head.key)}
    like = connection.execute(_LIKE, asked | {"credentials": head.credentials, "body": head.body}).fetchall()
    for number, id, target in like:
        if decode(target) == head.target and _has_event(connection, number, event_id):
            return str(id)
    return None


def _has_event(connection: sqlite3.Connection, stream: int, event_id: str) -> bool:
    parts = connection.execute(_PARTS_WITH, (stream, event_id.encode("utf-8", "surrogateescape")))
    return any(read_id(block) == event_id for (blocks,) in parts for block in split_blocks(blocks))
