"""The durable log of topics: its operations and errors.

`producer.log.sqlite_log.SqliteEventLog` is the embedded implementation; any other must pass `tests/producer/event_log_contract.py` too.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class LogError(Exception):
    """An operation of the log failed and changed nothing."""


class LogFull(LogError):
    """The device is full. The log can still be read; appending works again once there is space."""


class LogDamaged(LogError):
    """The log's files are not as this log wrote them; the message says how to recover."""


class LogInUse(LogError):
    """Another process has the log open; the message names its directory."""


class KeyReused(LogError):
    """An idempotency key was used again with other content."""


def is_whole_block(block: bytes) -> bool:
    """Whether this is one event block with LF line ends and without an `id` line, as `eventstream.encode` returns them."""
    return (
        block.find(b"\n\n") == len(block) - 2 > 0
        and block[0] != 10
        and b"\r" not in block
        and not block.startswith(b"id:")
        and b"\nid:" not in block
    )


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Makes an append idempotent: the same `name` on a topic with an equal `fingerprint` (a digest of the content) finds the first."""

    name: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """The position of an append in the log: the offsets `first` to `last`, without holes."""

    first: int
    last: int
    repeated: bool = False
    """Whether an earlier append with the same idempotency key is returned."""


class Stored(NamedTuple):  # created by the million, and a frozen dataclass takes twice as long to create
    """One event of the log."""

    offset: int
    topic: str
    block: bytes
    """The whole event block, its `id: <epoch>-<offset>` line first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one read."""

    events: Sequence[Stored]
    """In order of their offsets."""
    through: int
    """The read is complete up to this offset; the next one continues after it."""
    gone_through: int
    """The highest offset of an event of these topics that the log no longer has (trimmed or dropped), 0 when it has all of them.
    A reader that asked for events after a smaller offset may have missed some."""


@dataclass(slots=True)
class Topic:
    """The state of one topic as of the newest announced event."""

    name: str
    count: int = 0
    bytes: int = 0
    """Bytes of the blocks."""
    last: int = 0
    """Offset of the newest event that the log has, 0 when it has none."""
    gone_through: int = 0
    """The highest offset of an event that it no longer has."""


class EventLog(Protocol):
    """One total order over the events of all topics, which survives any crash.

    Offsets count from 1. All methods are called in one event loop, and none blocks it.
    """

    epoch: str
    """A random token that a log gets when it is created: letters and digits, no `-`."""
    last: int
    """The offset of the newest announced event, 0 in the beginning. `topics` and `watch` always agree with it."""
    topics: dict[str, Topic]
    """All topics by name, including emptied ones that are still known."""

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        """Call `announce` with all events appended from now on, in order, once each, as soon as they are durable and before the `append`
        that added them returns."""

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        """Append event blocks that have no `id` line, all or none of them, and return when they are durable.

        Cancellation does not undo it. Raises LogFull, KeyReused, LogError, or ValueError for no blocks or an invalid block.
        """

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        """Return the oldest events with `after < offset <= upto`, of the named topics or of all; at least one, if there is one, whatever
        its size. Takes O(log n) to find the first. For many topics, passing the same frozenset again is faster than another collection.
        Raises LogError."""

    async def get(self, offset: int) -> Stored | None:
        """Return one event, None when the log does not have it."""

    async def first(self, topics: Collection[str] | None = None) -> int:
        """Return the offset of the oldest event of the named topics or of all, 0 when there is none."""

    async def offset_before(self, time_ms: int) -> int:
        """Return the offset after which all events were appended at or after `time_ms` (Unix time in milliseconds, of a clock that never
        goes back)."""

    async def drop(self, topic: str) -> int:
        """Remove all events of a topic, durably, and return their number. Its `gone_through` moves."""

    async def trim(self) -> int:
        """Remove a bounded number of the events beyond retention, oldest first, and return their number; 0: nothing to do."""

    async def close(self) -> None:
        """Make all appended events durable and release the files; may be called again."""


_ID = re.compile(r"([A-Za-z0-9]{1,64})-(0|[1-9][0-9]{0,17})")


def format_event_id(epoch: str, offset: int) -> str:
    """Return the id of the event at `offset`. The offset 0 is before the first event."""
    return f"{epoch}-{offset}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Return epoch and offset, None when `text` is not an event id."""
    found = _ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None
