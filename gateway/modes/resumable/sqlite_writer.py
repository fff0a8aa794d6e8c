"""Write to the embedded store of kept streams: many changes in one transaction, and removal in small steps."""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .sqlite_file import StreamFile, full
from .sqlite_space import SMALL_CHANGE_BYTES, Running, Space, weight
from .store import CUT, StoreError, StreamEvicted, StreamHead

_STOPPED = "the gateway stopped while it ran"
_MOST_REASON_CHARACTERS = 200  # it is kept for a day


@dataclass(frozen=True, slots=True)
class Create:
    """A new stream."""

    id: str
    head: StreamHead


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a stream that was created without one."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Append:
    """The next whole blocks of a stream."""

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
    block_count: int | None = None
    cost: int | None = None


Change = Create | Name | Append | Finish


class StreamWriter:
    """The only writer to a store. Used by one thread at a time. Every method may block on the disk."""

    def __init__(
        self, directory: Path, *, retain_seconds: float, clock: Callable[[], float], most_bytes: int, share_per_owner: float
    ) -> None:
        """Open the store. Streams that were running when it was last open are cut, and kept for `retain_seconds`. Raises StoreError.

        It takes about `most_bytes` of the device, and each owner's streams their share of that.
        """
        self.file = StreamFile(directory, most_bytes)
        self.running: dict[str, Running] = {}
        self._portion_bytes = self.file.wal_bytes // 2
        self._instance = secrets.token_hex(8)
        now = clock()
        try:
            with self.file.transaction() as connection:
                connection.execute(
                    "INSERT INTO endings SELECT number, ?, ?, ?, ?,"
                    " (SELECT ifnull(sum(length(blocks)), 0) FROM parts WHERE stream = streams.number), NULL, NULL, NULL"
                    " FROM streams WHERE number NOT IN (SELECT stream FROM endings)",
                    (CUT, encode(_STOPPED), now, now + retain_seconds),
                )
                [self._newest] = connection.execute("SELECT ifnull(max(number), 0) FROM streams").fetchone()
                self.space = Space(self.file, self.running, share=share_per_owner, clock=clock)
        except BaseException:
            self.file.close()
            raise

    def __repr__(self) -> str:
        return f"<StreamWriter {self.file.path} running={len(self.running)} {self.space}>"

    def close(self) -> None:
        """Close the file, and release the directory."""
        self.file.close()

    def write(self, changes: Sequence[Change]) -> list[StoreError | None]:
        """Make changes in order, in one transaction, or in several if they have many megabytes.

        Return for each None, or the error. After an error no later change of the same stream is made. Raises StoreError if none was made.
        """
        outcomes: list[StoreError | None] = []
        refused: dict[str, StoreError] = {}
        for portion in _portions(changes, self._portion_bytes):
            try:
                outcomes += self._write(portion, refused)
            except StoreError as error:
                if not outcomes:
                    raise
                return outcomes + [error] * (len(changes) - len(outcomes))
        return outcomes

    def _write(self, changes: Sequence[Change], refused: dict[str, StoreError]) -> list[StoreError | None]:
        needs = self._needs(changes)
        self.file.keep_wal_small(sum(needs.values()))
        self.space.make_room(needs)
        opened = json.dumps([change.id for change in changes if isinstance(change, Create)])
        group = _Group(self.file, self._instance, self.space, self.running, self._newest, refused)
        with self.file.transaction() as connection:
            known = connection.execute(
                "SELECT streams.id FROM json_each(?) AS asked CROSS JOIN streams ON streams.id = asked.value", (opened,)
            ).fetchall()
            group.known = {id for (id,) in known}
            outcomes = [group.take(change) for change in changes]
            group.insert()
        self._newest = group.newest
        for id, stream in group.changed.items():
            if stream is not None:
                self.running[id] = stream
            else:
                self.running.pop(id, None)  # opened and ended in one group
        for owner, size in group.added.items():
            self.space.change(owner, size)
        self.space.evicted -= group.told
        for id in group.too_large & self.running.keys():
            self.space.drop_running(id)
        return outcomes

    def _needs(self, changes: Sequence[Change]) -> dict[str, int]:
        """Return the approximate bytes on disk of changes, by owner."""
        needs: dict[str, int] = {}
        opened: dict[str, str] = {}
        for change in changes:
            if isinstance(change, Create):
                owner = opened[change.id] = change.head.owner
                needs[owner] = needs.get(owner, 0) + _size_of(change.head)
            elif isinstance(change, Append):
                stream = self.running.get(change.id)
                owner = stream.owner if stream is not None else opened.get(change.id, "")
                needs[owner] = needs.get(owner, 0) + len(change.blocks)
        return needs


class _Group:
    """Changes that become one transaction."""

    def __init__(
        self, file: StreamFile, instance: str, space: Space, running: dict[str, Running], newest: int, refused: dict[str, StoreError]
    ) -> None:
        """Begin a group. `running` and `space` are only read. `refused` has errors by stream ID, and gets new ones."""
        self.newest = newest
        self.known: set[str] = set()
        """IDs of created streams that exist already."""
        self.changed: dict[str, Running | None] = {}
        self.added: dict[str, int] = {}
        """Additional bytes on disk, by owner."""
        self.too_large: set[str] = set()
        """Streams for which there is no room beside the other running streams of their owners."""
        self.told: set[str] = set()
        """Streams that gave way, whose callers get the error now."""
        self._file = file
        self._instance = instance
        self._path = file.path
        self._space = space
        self._running = running
        self._device_room = file.room()
        self._room = space.room()
        self._refused = refused
        self._streams: list[object] = []
        self._names: list[tuple[bytes, int]] = []
        self._parts: dict[int, list[bytes]] = {}
        self._endings: list[object] = []

    def take(self, change: Change) -> StoreError | None:
        """Add a change, or return why it is refused."""
        refusal = self._refused.get(change.id) or self._try(change)
        if refusal is not None:
            self._refused[change.id] = refusal  # later changes would leave a gap
        return refusal

    def _try(self, change: Change) -> StoreError | None:
        stream = self.changed[change.id] if change.id in self.changed else self._running.get(change.id)
        if isinstance(change, Create):
            if stream is not None or change.id in self.known or change.id in self.changed:
                return StoreError(f"{self._path}: there is a stream {change.id!r} already; take a new id")
            return self._create(change.head)
        if stream is None:
            if change.id in self._space.evicted:
                self.told.add(change.id)
                return StreamEvicted(f"{self._path}: stream {change.id!r} gave way, because the store was full")
            return StoreError(f"{self._path}: stream {change.id!r} does not run there, so that it cannot take or end it")
        if isinstance(change, Append):
            return self._append(change, stream)
        if isinstance(change, Name):
            self._names.append((encode(change.name), stream.number))
            return None
        self.changed[change.id] = None
        ending = (stream.number, change.state, encode(change.reason[:_MOST_REASON_CHARACTERS]), change.ended_at, change.keep_until)
        self._endings += (*ending, stream.bytes, None, change.block_count, change.cost)
        return None

    def _create(self, head: StreamHead) -> StoreError | None:
        target, key, fields = encode(head.target), encode(head.key), json.dumps([*map(list, head.fields)])
        size = weight(target, key, fields)
        if (refusal := self._refuse(head.id, head.owner, size)) is not None:
            return refusal
        self.newest += 1
        self.changed[head.id] = Running(self.newest, head.owner, size)
        texts = encode(head.route), encode(head.method), target
        values = head.credentials, head.body, key, encode(head.name), fields, head.opened_at, head.owner
        self._streams += (self.newest, head.id, self._instance, *texts, *values)
        return None

    def _append(self, change: Append, stream: Running) -> StoreError | None:
        size = len(change.blocks)
        if (refusal := self._refuse(change.id, stream.owner, size)) is not None:
            return refusal
        self.changed[change.id] = Running(stream.number, stream.owner, stream.weight + size, stream.bytes + size)
        if change.blocks:
            self._parts.setdefault(stream.number, []).append(change.blocks)
        return None

    def _refuse(self, id: str, owner: str, size: int) -> StoreError | None:
        """Return why `size` more bytes cannot be written, or None. Then they count."""
        added = self.added.get(owner, 0) + size
        most = self._space.most_bytes_per_owner
        if owner and self._space.owned.get(owner, 0) + added > most:
            self.too_large.add(id)
            return StreamEvicted(f"{self._path}: the streams of one client have {most} bytes there, and stream {id!r} would have more")
        if self._room < size:
            return StoreError(f"{self._path}: the store is as large as it may be; raise GATEWAY_MAX_STORE_BYTES, or lower retain_seconds")
        if self._device_room < size * 2:  # once in the write-ahead log, once in the file
            return full(self._path)
        self._room -= size
        self._device_room -= size * 2
        self.added[owner] = added
        return None

    def insert(self) -> None:
        """Write the accepted changes."""
        self._file.insert("INSERT INTO streams", 13, self._streams)
        self._file.connection.executemany("UPDATE streams SET name = ? WHERE number = ?", self._names)
        self._file.insert_parts(self._parts)
        self._file.insert("INSERT INTO endings", 9, self._endings)


def _size_of(head: StreamHead) -> int:
    """Return an estimate of `weight`, which costs less."""
    return SMALL_CHANGE_BYTES + len(head.target) + len(head.key) + sum(len(name) + len(value) for name, value in head.fields)


def _portions(changes: Sequence[Change], most_bytes: int) -> Iterator[Sequence[Change]]:
    """Yield changes in order, in portions of about `most_bytes` of blocks."""
    begin = size = 0
    for place, change in enumerate(changes):
        if isinstance(change, Append):
            if size and size + len(change.blocks) > most_bytes:
                yield changes[begin:place]
                begin, size = place, 0
            size += len(change.blocks)
    yield changes[begin:]


def encode(text: str) -> bytes:
    """Encode any text, also header fields that are not UTF-8. `decode` is the inverse."""
    return text.encode("utf-8", "surrogatepass")


def decode(stored: bytes) -> str:
    """Return the text that was encoded."""
    return stored.decode("utf-8", "surrogatepass")
