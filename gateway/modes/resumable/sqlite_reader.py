"""Queries of the embedded store of kept streams, each in one transaction."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eventstream import split_blocks

from ...streams.stamping import read_id, read_ids
from .sqlite_file import damaged
from .sqlite_writer import decode, encode
from .store import EXPIRED, RUNNING, StoredStream, StreamHead

_STREAM = (
    "SELECT number, route, method, target, credentials, body, key, name, fields, opened_at, owner,"
    " state, reason, ended_at, bytes, dropped_at, block_count, cost FROM streams LEFT JOIN endings ON stream = number WHERE id = ?"
)
# One statement for many blocks: each row releases the interpreter's lock, and a busy event loop is slow to return it.
_SIZES = (
    "SELECT json_group_array(number), json_group_array(size)"
    " FROM (SELECT number, length(blocks) AS size FROM parts WHERE stream = ? ORDER BY number)"
)
_BLOCKS = (
    "SELECT CAST(group_concat(blocks, '') AS BLOB)"
    " FROM (SELECT blocks FROM parts WHERE stream = ? AND number BETWEEN ? AND ? ORDER BY number)"
)
_PART_BYTES = 256 * 1024
_BY_KEY = (
    "SELECT id FROM streams LEFT JOIN endings ON stream = number"
    " WHERE key = ? AND key != x'' AND route = ? AND credentials = ? AND dropped_at IS NULL ORDER BY number DESC LIMIT 1"
)
_BY_NAME = _BY_KEY.replace("key", "name")
# By the index of streams with blocks, those of the last minutes: a separate index would cost time for each new stream.
_LIKE = (
    "SELECT number, id, target FROM endings INDEXED BY endings_by_keep_until JOIN streams ON number = stream"
    " WHERE dropped_at IS NULL AND credentials = :credentials AND body = :body AND route = :route AND method = :method"
    " AND (credentials != x'' OR key = :key AND key != x'') ORDER BY key = :key AND key != x'' DESC, number DESC LIMIT 50"
)
_PARTS_WITH = "SELECT blocks FROM parts WHERE stream = ? AND instr(blocks, ?)"


def look_up(connection: sqlite3.Connection, id: str) -> StoredStream | None:
    """Return a stream without its blocks, or None. Raises sqlite3.Error."""
    found = _find(connection, id)
    return found[1] if found is not None else None


def load(connection: sqlite3.Connection, path: Path, id: str, take: Callable[[bytes], object]) -> StoredStream | None:
    """Do the same, and call `take` with its blocks in parts. Raises StoreError if blocks are missing, and sqlite3.Error."""
    found = _find(connection, id)
    if found is None or found[1].state == EXPIRED:
        return found and found[1]
    number, stream = found
    numbers, sizes = map(json.loads, connection.execute(_SIZES, (number,)).fetchone())
    if stream.state != RUNNING and sum(sizes) != stream.size:
        raise damaged(path, f"stream {id!r} has {sum(sizes)} bytes, and should have {stream.size}")
    first = size = 0
    for place, length in enumerate(sizes, 1):
        size += length
        if size >= _PART_BYTES or place == len(sizes):
            take(connection.execute(_BLOCKS, (number, numbers[first], numbers[place - 1])).fetchone()[0])
            first, size = place, 0
    return replace(stream, size=sum(sizes))


def _find(connection: sqlite3.Connection, id: str) -> tuple[int, StoredStream] | None:
    """Return the number of a stream, and the stream without its blocks."""
    row = connection.execute(_STREAM, (id,)).fetchone() if id.isascii() and id.isprintable() else None
    if row is None:
        return None
    number, route, method, target, credentials, body, key, name, fields, opened_at, owner = row[:11]
    state, reason, ended_at, size, dropped_at, block_count, cost = row[11:]
    pairs = [(name, value) for name, value in json.loads(fields)]
    head = StreamHead(
        id, decode(route), decode(method), decode(target), credentials, body, decode(key), pairs, opened_at, owner or "", decode(name)
    )
    if state is None:
        return number, StoredStream(head, RUNNING, "", 0.0, 0, None, None)
    if dropped_at is not None:
        reason = encode(state) + b": " + reason if reason else encode(state)
        return number, StoredStream(head, EXPIRED, decode(reason), ended_at, size, None, None)
    return number, StoredStream(head, state, decode(reason), ended_at, size, block_count, cost)


def find_key(connection: sqlite3.Connection, route: str, credentials: bytes, key: str) -> str | None:
    """Return the ID of the newest stream with this Idempotency-Key, or None. Raises sqlite3.Error."""
    row = connection.execute(_BY_KEY, (encode(key), encode(route), credentials)).fetchone()
    return None if row is None else str(row[0])


def find_name(connection: sqlite3.Connection, route: str, credentials: bytes, name: str) -> str | None:
    """Return the ID of the newest stream with this name, or None. Raises sqlite3.Error."""
    row = connection.execute(_BY_NAME, (encode(name), encode(route), credentials)).fetchone()
    return None if row is None else str(row[0])


def find_event(connection: sqlite3.Connection, head: StreamHead, event_id: str) -> str | None:
    """Return the ID of a stream that a request may resume after an event, or None. Raises sqlite3.Error."""
    asked = {"route": encode(head.route), "method": encode(head.method), "key": encode(head.key)}
    like = connection.execute(_LIKE, asked | {"credentials": head.credentials, "body": head.body}).fetchall()
    for number, id, target in like:
        if decode(target) == head.target and _has_event(connection, number, event_id):
            return str(id)
    return None


def _has_event(connection: sqlite3.Connection, stream: int, event_id: str) -> bool:
    parts = connection.execute(_PARTS_WITH, (stream, event_id.encode("utf-8", "surrogateescape")))
    return any(_is_id_in(blocks, event_id) for (blocks,) in parts)


def _is_id_in(blocks: bytes, event_id: str) -> bool:
    """Whether a block sets the last event ID to `event_id`. Blocks are split only if an `id` field has it, because that is slow."""
    ids = {id.decode("utf-8", "replace") for id in read_ids(blocks)}
    return event_id in ids and any(read_id(block) == event_id for block in split_blocks(blocks))
