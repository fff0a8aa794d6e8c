"""Count the disk space of kept streams by owner, and choose which ones give way. All removal is done in small steps."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from .sqlite_file import StreamFile
from .store import CUT

TOMBSTONE_SECONDS = 86_400.0
MOST_TOMBSTONES = 100_000
"""Most streams without blocks that are remembered, whatever their age: about 20 MB. In a small store there are fewer."""
STEP_STREAMS = 500
STEP_BYTES = 2 * 1024 * 1024
SMALL_CHANGE_BYTES = 1024
"""Approximate size of a stream in the file, besides its blocks and the long parts of its head."""
EVICTED = "it gave way, because the store was full"

_BYTES_PER_TOMBSTONE = 4096  # one per this number of bytes of the limit, so that streams without blocks take at most a twentieth of it
_SPARE_PART = 64  # free an extra 1/64 of the limit at once

# What `weight` returns, and the bytes of blocks.
_WEIGHT = f"bytes + {SMALL_CHANGE_BYTES} + length(target) + length(key) + length(fields)"
_ENDED = f"SELECT number, owner, {_WEIGHT} FROM endings JOIN streams ON number = stream"  # noqa: S608  # just a number is put in
_BY_OWNER = f"SELECT owner, sum({_WEIGHT}) FROM endings JOIN streams ON number = stream WHERE owner IS NOT NULL GROUP BY owner"  # noqa: S608
_OVER = " WHERE dropped_at IS NULL AND keep_until <= ? ORDER BY keep_until"
_OLDEST = " WHERE owner = ? ORDER BY number"
_IDS = "SELECT number, id FROM streams WHERE number IN (SELECT value FROM json_each(:these))"
_BURY = (
    "DELETE FROM parts WHERE stream IN (SELECT value FROM json_each(:these))",
    "UPDATE endings SET dropped_at = :now, reason = coalesce(:reason, reason) WHERE stream IN (SELECT value FROM json_each(:these))",
    "DELETE FROM streams WHERE number IN (SELECT value FROM json_each(:these))",
)
_NOTHING = ("", b"", b"", b"", b"", b"", b"", b"", "[]", 0.0, None)  # in the columns after the ID of a stream without blocks

_Row = tuple[int, str, int]
"""Number, owner and weight of a stream."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running stream."""

    number: int
    owner: str
    weight: int
    """Bytes on disk, its head included."""
    bytes: int = 0
    """Bytes of its blocks."""


class Space:
    """The disk space of streams, in total and by owner. Used by one thread at a time. Every method may block on the disk.

    The file may have `StreamFile.most_bytes`, and each owner `share` of it; streams without an owner may use all. When it is full, the
    blocks of ended streams give way: the heaviest owner's first, oldest first. If the heaviest owner has only running streams, its largest
    one gives way: its later blocks are kept in memory only, which has its own limit.
    """

    def __init__(self, file: StreamFile, running: dict[str, Running], *, share: float, clock: Callable[[], float]) -> None:
        """Use `running` of the writer, which keeps changing it. Raises sqlite3.Error."""
        self._file = file
        self._running = running
        self._clock = clock
        self.most_bytes_per_owner = int(file.most_bytes * share)
        self.owned: dict[str, int] = dict(file.connection.execute(_BY_OWNER).fetchall())
        """Bytes of each owner's streams that have blocks."""
        self.evicted: set[str] = set()
        """IDs of running streams that gave way, until their next caller gets the error."""
        self.dropped = 0
        """Number of streams that have given way."""
        self._most_tombstones = min(MOST_TOMBSTONES, file.most_bytes // _BYTES_PER_TOMBSTONE)
        [self._tombstones] = file.connection.execute("SELECT count(*) FROM endings WHERE dropped_at IS NOT NULL").fetchone()

    def __repr__(self) -> str:
        return f"<Space owners={len(self.owned)} tombstones={self._tombstones} evicted={self.dropped}>"

    def room(self) -> int:
        """Return the bytes until the file reaches its limit. Raises StoreError."""
        pages, unused = self._file.pages()
        return self._file.most_bytes - pages + unused

    def make_room(self, needs: Mapping[str, int]) -> None:
        """Make streams give way until each owner may have `needs` more bytes, as far as possible. Raises StoreError."""
        for owner, need in needs.items():
            while owner and (excess := self.owned.get(owner, 0) + need - self.most_bytes_per_owner) > 0:
                if not self._evict(owner, excess):
                    break

        def total(owner: str) -> tuple[bool, int]:
            return owner != "", self.owned[owner] + needs.get(owner, 0)

        while self.owned and (missing := sum(needs.values()) - self.room()) > 0:
            if not self._evict(max(self.owned, key=total), missing + self._file.most_bytes // _SPARE_PART):
                return

    def change(self, owner: str, step: int) -> None:
        """Add `step` to the bytes of an owner."""
        owned = self.owned.get(owner, 0) + step
        if owned > 0:
            self.owned[owner] = owned
        else:
            self.owned.pop(owner, None)  # otherwise every owner ever seen stays in memory

    def _evict(self, owner: str, missing: int) -> bool:
        """Drop about `missing` bytes of an owner's blocks, and return whether there were any."""
        due = self._some(_OLDEST, (owner,), min(missing, STEP_BYTES))
        if due:
            self._bury(due, self._clock(), EVICTED)
            self.dropped += len(due)
            return True
        runs = ((stream.weight, id) for id, stream in self._running.items() if stream.owner == owner)
        largest = max(runs, default=None)
        if largest is not None:
            self.drop_running(largest[1])
            self.evicted.add(largest[1])
        return largest is not None

    def drop_running(self, id: str) -> None:
        """Drop the blocks of a running stream, and take no more of it. Raises StoreError."""
        stream, now = self._running[id], self._clock()
        self._bury([(stream.number, stream.owner, stream.weight)], now, EVICTED, (CUT, now, now, stream.bytes))
        del self._running[id]
        self.dropped += 1

    def expire(self, now: float) -> int:
        """Drop the blocks of some expired streams, and forget some whose blocks were dropped a day ago. Return the number of both.

        Raises StoreError.
        """
        if self._file.room() < 0:
            self._file.checkpoint()  # the write-ahead log may have filled the device, and removal needs room in it
        due = self._some(_OVER, (now,), STEP_BYTES)
        if due:
            self._bury(due, now)
        self.make_room({})  # the limit may have been lowered
        return len(due) + self._forget(now)

    def _some(self, which: str, given: tuple[object, ...], most_bytes: int) -> list[_Row]:
        """Return the first rows, up to `most_bytes` of them, but at least one if there are any."""
        due: list[_Row] = []
        size = 0
        rows = f"{_ENDED}{which} LIMIT {STEP_STREAMS}"
        with self._file.errors(), closing(self._file.connection.execute(rows, given)) as cursor:
            for row in cursor:
                due.append(row)
                size += row[2]
                if size >= most_bytes:
                    break
        return due

    def _bury(self, due: Sequence[_Row], now: float, reason: str | None = None, ending: tuple[object, ...] = ()) -> None:
        """Drop everything of streams but their IDs and how they ended: long requests must not be kept for a day.

        `ending` is that of a running stream: state, Unix times of its end and of its removal, and its bytes.
        """
        given = {"these": json.dumps([number for number, _, _ in due]), "now": now, "reason": reason and reason.encode()}
        with self._file.transaction() as connection:
            if ending:
                connection.execute("INSERT INTO endings VALUES (?, ?, x'', ?, ?, ?, NULL, NULL, NULL)", (due[0][0], *ending))
            ids = connection.execute(_IDS, given).fetchall()
            for statement in _BURY:
                connection.execute(statement, given)
            rows = [(*each, *_NOTHING) for each in ids]  # inserted again: rows that shrink in place leave their pages half empty
            self._file.insert("INSERT INTO streams", len(rows[0]), [*chain.from_iterable(rows)])
        for _, owner, size in due:
            self.change(owner, -size)
        self._tombstones += len(due)

    def _forget(self, now: float) -> int:
        excess = self._tombstones - self._most_tombstones
        some = "SELECT stream, dropped_at FROM endings WHERE dropped_at IS NOT NULL ORDER BY dropped_at, stream LIMIT ?"
        with self._file.transaction() as connection:
            oldest = connection.execute(some, (STEP_STREAMS,)).fetchall()
            due = [stream for place, (stream, dropped_at) in enumerate(oldest) if dropped_at <= now - TOMBSTONE_SECONDS or place < excess]
            if due:
                these = json.dumps(due)
                connection.execute("DELETE FROM endings WHERE stream IN (SELECT value FROM json_each(?))", (these,))
                connection.execute("DELETE FROM streams WHERE number IN (SELECT value FROM json_each(?))", (these,))
        self._tombstones -= len(due)
        return len(due)


def weight(target: bytes, key: bytes, fields: str) -> int:
    """Return the bytes on disk of a stream without blocks, from the long parts of its head as they are stored."""
    return SMALL_CHANGE_BYTES + len(target) + len(key) + len(fields)
