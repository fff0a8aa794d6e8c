"""What changes the embedded store of kept streams: many changes in one transaction, and removal in small steps."""

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .sqlite_file import RESERVE_BYTES, StreamFile, explain, full
from .store import CUT, StoreError, StreamHead

TOMBSTONE_SECONDS = 86_400.0
MOST_TOMBSTONES = 100_000
"""So many streams without blocks are known at most, whatever their age; about 30 MB."""
STEP_STREAMS = 500
STEP_BYTES = 2 * 1024 * 1024
STEP_PAGES = 256

_SMALL_CHANGE_BYTES = 1024  # about what a stream takes in the file besides its blocks
_SPARE_PAGES = 4096
_STOPPED = "the gateway stopped while it ran"


@dataclass(frozen=True, slots=True)
class Create:
    """A new stream."""

    id: str
    head: StreamHead


@dataclass(frozen=True, slots=True)
class Append:
    """Whole blocks that follow those of the stream."""

    id: str
    blocks: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """How a stream ended."""

    id: str
    state: str
    reason: str
    ended_at: float
    keep_until: float


Change = Create | Append | Finish


@dataclass(frozen=True, slots=True)
class _Running:
    number: int
    bytes: int = 0


class StreamWriter:
    """The only one that changes a store, used by one thread at a time; every method may block on the disk."""

    def __init__(self, directory: Path, *, retain_seconds: float, now: float) -> None:
        """Opens the store; what ran when it was last open was cut, and is kept for `retain_seconds` from now on. Raises StoreError."""
        self.file = StreamFile(directory)
        self.running: dict[str, _Running] = {}
        self._instance = secrets.token_hex(8)
        try:
            with self.file.transaction() as connection:
                connection.execute(
                    "INSERT INTO endings SELECT number, ?, ?, ?, ?,"
                    " (SELECT ifnull(sum(length(blocks)), 0) FROM parts WHERE stream = streams.number), NULL"
                    " FROM streams WHERE number NOT IN (SELECT stream FROM endings)",
                    (CUT, encode(_STOPPED), now, now + retain_seconds),
                )
                [self._newest] = connection.execute("SELECT ifnull(max(number), 0) FROM streams").fetchone()
                [self._tombstones] = connection.execute("SELECT count(*) FROM endings WHERE dropped_at IS NOT NULL").fetchone()
        except BaseException:
            self.file.close()
            raise

    def __repr__(self) -> str:
        return f"<StreamWriter {self.file.path} running={len(self.running)} tombstones={self._tombstones}>"

    def write(self, changes: Sequence[Change]) -> list[StoreError | None]:
        """Makes changes in their order, in one transaction; gives for each None, or why neither it nor what follows of its stream was made.
        Raises StoreError when none was made."""
        self.file.keep_wal_small()
        room = self.file.room()
        opened = json.dumps([change.id for change in changes if isinstance(change, Create)])
        with self.file.transaction() as connection:
            known = connection.execute(
                "SELECT streams.id FROM json_each(?) AS asked CROSS JOIN streams ON streams.id = asked.value", (opened,)
            ).fetchall()
            group = _Group(self.file.path, self.running, {id for (id,) in known}, self._newest, room)
            outcomes = [group.take(change) for change in changes]
            group.insert(self.file, self._instance)
        self._newest = group.newest
        for id, stream in group.changed.items():
            if stream is not None:
                self.running[id] = stream
            else:
                self.running.pop(id, None)  # opened and ended in one group
        return outcomes

    def expire(self, now: float) -> int:
        """Drops the blocks of some streams that are over their time, and forgets some whose blocks were dropped a day ago; gives how many
        streams it dealt with. Raises StoreError."""
        if self.file.room() < 0:
            self.file.checkpoint()  # the write-ahead log may be what fills the device, and what removes streams must work there
        return self._drop(now) + self._forget(now)

    def _drop(self, now: float) -> int:
        due, size = [], 0
        some = "SELECT stream, bytes FROM endings WHERE dropped_at IS NULL AND keep_until <= ? ORDER BY keep_until LIMIT ?"
        with self.file.transaction() as connection:
            for stream, length in connection.execute(some, (now, STEP_STREAMS)).fetchall():
                due.append(stream)
                size += length
                if size >= STEP_BYTES:
                    break
            if not due:
                return 0
            these = json.dumps(due)
            connection.execute("DELETE FROM parts WHERE stream IN (SELECT value FROM json_each(?))", (these,))
            connection.execute("UPDATE endings SET dropped_at = ? WHERE stream IN (SELECT value FROM json_each(?))", (now, these))
            connection.execute("UPDATE streams SET fields = '[]' WHERE number IN (SELECT value FROM json_each(?))", (these,))
        self._tombstones += len(due)
        return len(due)

    def _forget(self, now: float) -> int:
        excess = self._tombstones - MOST_TOMBSTONES
        some = "SELECT stream, dropped_at FROM endings WHERE dropped_at IS NOT NULL ORDER BY dropped_at, stream LIMIT ?"
        with self.file.transaction() as connection:
            oldest = connection.execute(some, (STEP_STREAMS,)).fetchall()
            due = [stream for place, (stream, dropped_at) in enumerate(oldest) if dropped_at <= now - TOMBSTONE_SECONDS or place < excess]
            if due:
                these = json.dumps(due)
                connection.execute("DELETE FROM endings WHERE stream IN (SELECT value FROM json_each(?))", (these,))
                connection.execute("DELETE FROM streams WHERE number IN (SELECT value FROM json_each(?))", (these,))
        self._tombstones -= len(due)
        return len(due)

    def shrink(self) -> bool:
        """Gives some of the file back when more than a quarter of it is unused, or the device is nearly full, else new blocks will fill it;
        gives whether it did. Raises StoreError."""
        connection = self.file.connection
        short = self.file.room() < RESERVE_BYTES // 4
        try:
            [unused] = connection.execute("PRAGMA freelist_count").fetchone()
            [pages] = connection.execute("PRAGMA page_count").fetchone()
            if unused < (STEP_PAGES if short else max(_SPARE_PAGES, pages // 4)):
                return False
            connection.executescript(f"PRAGMA incremental_vacuum({STEP_PAGES})")  # `execute` would stop behind one page
        except sqlite3.Error as error:
            raise explain(error, self.file.path) from error
        if short:
            self.file.checkpoint()  # only now the device has them
        return True


class _Group:
    """Changes that become one transaction."""

    def __init__(self, path: Path, running: dict[str, _Running], known: set[str], newest: int, room: int) -> None:
        """`running` stays as it is; `known` are the ids of this group's new streams that are not new; `room` is in bytes."""
        self.newest = newest
        self.changed: dict[str, _Running | None] = {}
        self._path = path
        self._running = running
        self._known = known
        self._room = room
        self._refused: dict[str, StoreError] = {}
        self._streams: list[tuple[int, StreamHead]] = []
        self._parts: dict[int, list[bytes]] = {}
        self._endings: list[object] = []

    def take(self, change: Change) -> StoreError | None:
        """Takes a change, or gives why not."""
        refusal = self._refused.get(change.id) or self._try(change)
        if refusal is not None:
            self._refused[change.id] = refusal  # what follows would leave a hole
        return refusal

    def _try(self, change: Change) -> StoreError | None:
        stream = self.changed[change.id] if change.id in self.changed else self._running.get(change.id)
        if isinstance(change, Create):
            if stream is not None or change.id in self._known or change.id in self.changed:
                return StoreError(f"{self._path}: there is a stream {change.id!r} already; take a new id")
            if not self._fits(_SMALL_CHANGE_BYTES):
                return full(self._path)
            self.newest += 1
            self.changed[change.id] = _Running(self.newest)
            self._streams.append((self.newest, change.head))
            return None
        if stream is None:
            return StoreError(f"{self._path}: stream {change.id!r} does not run there, so that it cannot take or end it")
        if isinstance(change, Append):
            if not self._fits(len(change.blocks)):
                return full(self._path)
            self.changed[change.id] = _Running(stream.number, stream.bytes + len(change.blocks))
            if change.blocks:
                self._parts.setdefault(stream.number, []).append(change.blocks)
            return None
        self.changed[change.id] = None
        ending = (stream.number, change.state, encode(change.reason), change.ended_at, change.keep_until, stream.bytes, None)
        self._endings.extend(ending)
        return None

    def _fits(self, size: int) -> bool:
        size *= 2  # once in the write-ahead log, once in the file
        if self._room < size:
            return False
        self._room -= size
        return True

    def insert(self, file: StreamFile, instance: str) -> None:
        """Writes what was taken."""
        streams: list[object] = []
        for number, head in self._streams:
            values = encode(head.route), encode(head.method), encode(head.target), head.credentials, head.body, encode(head.key)
            streams += (number, head.id, instance, *values, json.dumps([*map(list, head.fields)]), head.opened_at)
        file.insert("streams", 11, streams)
        file.insert_parts(self._parts)
        file.insert("endings", 7, self._endings)


def encode(text: str) -> bytes:
    """Gives bytes for any text, also for header fields that are not UTF-8; `decode` is its inverse."""
    return text.encode("utf-8", "surrogatepass")


def decode(stored: bytes) -> str:
    """Gives the text that was encoded."""
    return stored.decode("utf-8", "surrogatepass")
