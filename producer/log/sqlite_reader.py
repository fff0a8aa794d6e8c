"""The reading half of the embedded event log: each read of a connection uses one snapshot."""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate, compress, pairwise
from pathlib import Path
from typing import NamedTuple

from .event_log import Batch, Stored
from .sqlite_schema import FORMAT

MERGED_TOPICS = 64
"""The number of topics up to which events are merged from the index; for more, they are picked from a run of the log."""
_RUN_ROWS = 4000
_MOST_KNOWN = 8

# Few statements with large results: each releases the interpreter's lock, and a busy event loop is slow to return it.
_PACKED = "SELECT group_concat(offset), group_concat(topic), group_concat(size) FROM ({})"
_RUN = "SELECT offset, topic, length(block) AS size FROM events WHERE offset > ?1 AND offset <= ?2{} ORDER BY offset LIMIT ?3"
_NOT_DROPPED = " AND topic NOT IN (SELECT id FROM dropped)"
_OF_TOPIC = "SELECT offset, topic, length(block) AS size FROM events WHERE topic = ?{} AND offset > ?1 AND offset <= ?2"
_BLOCKS = "SELECT CAST(group_concat(block, '') AS BLOB) FROM (SELECT block FROM events WHERE {} ORDER BY offset)"
# Changes when a topic is new, dropped or forgotten, or events are trimmed.
_STATE = "SELECT (SELECT max(id) FROM topics), (SELECT min(offset) FROM events), forgotten_through FROM state"
_TOPICS = "FROM json_each(?) AS asked CROSS JOIN topics ON topics.name = asked.value"


class _Found(NamedTuple):
    """Events without their blocks, in the order of the log; columns of equal length."""

    offsets: Sequence[int]
    topics: Sequence[int]
    sizes: Sequence[int]


class _Known(NamedTuple):
    """The log's state of some topics."""

    ids: frozenset[int]
    gone_through: int


class Reader:
    """A connection that only reads, used by one thread at a time."""

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        """Open a connection; `names` are the topics by id, maintained by the writer. Raises LogError."""
        self._path = path
        self._names = names
        self._state: object = None
        self._known: dict[frozenset[str], _Known] = {}
        with FORMAT.errors(path):
            self._connection = FORMAT.connect(path)
            self._connection.execute("PRAGMA query_only = ON")
            self._connection.execute("PRAGMA cache_size = -8192")

    def close(self) -> None:
        self._connection.close()

    def _snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        return FORMAT.transaction(self._connection, self._path, begin="BEGIN")

    def read(self, after: int, upto: int, topics: Collection[str] | None, max_events: int, max_bytes: int) -> Batch:
        """Implement EventLog.read."""
        with self._snapshot() as connection:
            if topics is None:
                [gone_through] = connection.execute("SELECT gone_through FROM state").fetchone()
                found = _run(connection, after, upto, max_events, _NOT_DROPPED)
                through = upto if len(found.offsets) < max_events else found.offsets[-1]
            else:
                known = self._resolve(connection, topics)
                gone_through = known.gone_through
                if len(known.ids) <= MERGED_TOPICS:
                    found = _merge(connection, [*known.ids], after, upto, max_events)
                    through = upto if len(found.offsets) < max_events else found.offsets[-1]
                else:
                    found, through = _pick(connection, known.ids, after, upto)
            ends = list(accumulate(found.sizes))
            count = min(len(ends), max_events, max(1, bisect_right(ends, max_bytes)))
            events = self._fetch(connection, found, [0, *ends[:count]])
        if count < len(ends):
            through = found.offsets[count - 1]
        return Batch(events, max(through, after), gone_through)

    def _resolve(self, connection: sqlite3.Connection, topics: Collection[str]) -> "_Known":
        """Return the snapshot's state of these topics. For many, it is cached until something may have changed."""
        if len(topics) <= MERGED_TOPICS:
            return _look_up(connection, topics)
        state = connection.execute(_STATE).fetchone()
        names = frozenset(topics)
        if self._state != state:
            self._state = state
            self._known.clear()
        if names not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[names] = _look_up(connection, names)
        return self._known[names]

    def _fetch(self, connection: sqlite3.Connection, found: _Found, cuts: Sequence[int]) -> list[Stored]:
        offsets = found.offsets[: len(cuts) - 1]
        if not offsets:
            return []
        if offsets[-1] - offsets[0] < len(offsets):
            [joined] = connection.execute(_BLOCKS.format("offset BETWEEN ? AND ?"), (offsets[0], offsets[-1])).fetchone()
        else:
            [joined] = connection.execute(_BLOCKS.format("offset IN (SELECT value FROM json_each(?))"), (json.dumps(offsets),)).fetchone()
        blocks = [joined[begin:end] for begin, end in pairwise(cuts)]
        return list(map(Stored, offsets, map(self._names.__getitem__, found.topics), blocks))

    def get(self, offset: int) -> Stored | None:
        """Implement EventLog.get."""
        with self._snapshot() as connection:
            found = connection.execute(
                "SELECT name, block FROM events JOIN topics ON topics.id = events.topic WHERE offset = ?", (offset,)
            ).fetchone()
        return None if found is None else Stored(offset, *found)

    def first(self, topics: Collection[str] | None) -> int:
        """Implement EventLog.first."""
        with self._snapshot() as connection:
            if topics is None:
                offsets = _run(connection, 0, 2**63 - 1, 1, _NOT_DROPPED).offsets
                return offsets[0] if offsets else 0
            return _next(connection, self._resolve(connection, topics).ids, 0) or 0

    def offset_before(self, time_ms: int, last: int) -> int:
        """Implement EventLog.offset_before; return `last` when all events are older."""
        with self._snapshot() as connection:
            [gone_ms] = connection.execute("SELECT gone_ms FROM state").fetchone()
            if gone_ms >= time_ms:
                return 0
            oldest, newest = connection.execute("SELECT (SELECT min(offset) FROM events), (SELECT max(offset) FROM events)").fetchone()
            if oldest is None:
                return last
            older, newer, found = oldest - 1, newest + 1, last
            # Each event up to `older` is older than `time_ms`, each from `newer` on is not.
            while newer - older > 1:
                middle = (older + newer) // 2
                offset, of = connection.execute(
                    "SELECT offset, time_ms FROM events WHERE offset >= ? ORDER BY offset LIMIT 1", (middle,)
                ).fetchone()
                if of < time_ms:
                    older = offset
                else:
                    newer, found = middle, offset - 1
        return min(found, last)


def _unpack(packed: tuple[str | None, str | None, str | None]) -> _Found:
    if packed[0] is None:
        return _Found((), (), ())
    return _Found(*(json.loads(f"[{column}]") for column in packed))  # the fastest way to parse many numbers


def _run(connection: sqlite3.Connection, after: int, upto: int, rows: int, condition: str = "") -> _Found:
    return _unpack(connection.execute(_PACKED.format(_RUN.format(condition)), (after, upto, rows)).fetchone())


def _merge(connection: sqlite3.Connection, ids: Sequence[int], after: int, upto: int, rows: int) -> _Found:
    """Return the events of a few topics, merged from the index without sorting. Padding keeps the number of prepared statements small."""
    if not ids:
        return _Found((), (), ())
    padded = [*ids, *[None] * ((1 << (len(ids) - 1).bit_length()) - len(ids))]
    each = " UNION ALL ".join(_OF_TOPIC.format(number) for number in range(4, 4 + len(padded)))
    return _unpack(connection.execute(_PACKED.format(f"{each} ORDER BY offset LIMIT ?3"), (after, upto, rows, *padded)).fetchone())


def _pick(connection: sqlite3.Connection, ids: frozenset[int], after: int, upto: int) -> tuple[_Found, int]:
    """Return the events of many topics in a run of the log that has at least one, and the end of that run."""
    for _ in range(2):
        found = _run(connection, after, upto, _RUN_ROWS)
        through = upto if len(found.offsets) < _RUN_ROWS else found.offsets[-1]
        chosen = list(map(ids.__contains__, found.topics))
        if any(chosen):
            return _Found(*(list(compress(column, chosen)) for column in found)), through
        if through >= upto or not (following := _next(connection, ids, through)):
            break
        after = following - 1
    return _Found((), (), ()), upto


def _next(connection: sqlite3.Connection, ids: Collection[int], after: int) -> int | None:
    """Return the smallest offset of these topics after `after`: one seek each."""
    following = "(SELECT min(offset) FROM events WHERE topic = asked.value AND offset > ?2)"
    least = f"SELECT min({following}) FROM json_each(?1) AS asked"  # noqa: S608  # a constant
    [offset] = connection.execute(least, (json.dumps([*ids]), after)).fetchone()
    return offset if offset is None else int(offset)


def _look_up(connection: sqlite3.Connection, topics: Collection[str]) -> _Known:
    ids, gone_through, forgotten_through = connection.execute(  # _TOPICS is a constant
        f"SELECT group_concat(topics.id), ifnull(max(topics.gone_through), 0), (SELECT forgotten_through FROM state) {_TOPICS}",  # noqa: S608
        (json.dumps([*topics]),),
    ).fetchone()
    return _Known(frozenset(json.loads(f"[{ids or ''}]")), max(gone_through, forgotten_through))
