"""The durable log that topics are kept in: what it takes, what it gives, and what can go wrong.

`producer.log.sqlite_log.SqliteEventLog` is the embedded one; `tests/producer/event_log_contract.py` is what any other must pass as well.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class LogError(Exception):
    """The log could not do what was asked; nothing of it was done."""


class LogFull(LogError):
    """There is no room left on the device. What is in the log can still be read; appending works again once there is room."""


class LogDamaged(LogError):
    """The log's files are not what this log wrote; the message says how to recover."""


class LogInUse(LogError):
    """Another process has the log open; the message names its directory."""


class KeyReused(LogError):
    """An idempotency key came again with other content."""


def is_whole_block(block: bytes) -> bool:
    """Tells whether this is one event block with LF line ends and without an `id` line, as `eventstream.encode` makes them."""
    return (
        block.find(b"\n\n") == len(block) - 2 > 0
        and block[0] != 10
        and b"\r" not in block
        and not block.startswith(b"id:")
        and b"\nid:" not in block
    )


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Makes an append happen once: the same `name` on a topic with an equal `fingerprint` (a digest of the content) finds the first."""

    name: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """Where an append is in the log: the offsets `first` to `last`, without holes."""

    first: int
    last: int
    repeated: bool = False
    """Whether an earlier append with the same idempotency key stands for this one."""


class Stored(NamedTuple):  # of all values the one made by the million, and a frozen dataclass takes twice as long to make
    """One event of the log."""

    offset: int
    topic: str
    block: bytes
    """The whole event block, its `id: <epoch>-<offset>` line first."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read gave."""

    events: Sequence[Stored]
    """In order of their offsets."""
    through: int
    """The read is complete up to this offset: the next one goes on after it."""
    gone_through: int
    """The highest offset of an event of these topics that the log no longer has (trimmed or dropped), 0 when it has all of them.
    A reader that asked for what is after a smaller offset may have missed something."""


@dataclass(slots=True)
class Topic:
    """What the log knows of one topic as of the newest announced event."""

    name: str
    count: int = 0
    bytes: int = 0
    """Of the blocks."""
    last: int = 0
    """Offset of the newest event that it has, 0 when it has none."""
    gone_through: int = 0
    """The highest offset of an event that it no longer has."""


class EventLog(Protocol):
    """One total order over the events of all topics, kept through any crash.

    Offsets count from 1. All methods are called in one event loop, and none blocks it.
    """

    epoch: str
    """A random token that a log gets when it is born: letters and digits, no `-`."""
    last: int
    """The offset of the newest announced event, 0 in the beginning. `topics` and `watch` agree with it at any moment."""
    topics: dict[str, Topic]
    """All topics by name, emptied ones that something is known of included."""

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        """Lets `announce` be called with all events appended from now on, in order, once each, as soon as they are durable; before the
        `append` that brought them returns."""

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        """Appends event blocks that have no `id` line, all or none of them, and returns when they are durable.

        Being cancelled does not undo it. Raises LogFull, KeyReused, LogError; ValueError for no blocks, or what is no block.
        """

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        """Gives the oldest events with `after < offset <= upto`, of the named topics or of all; at least one, if there is one, whatever
        its size. Takes O(log n) to find the first. Of many topics, the same frozenset again is quicker than another collection.
        Raises LogError."""

    async def get(self, offset: int) -> Stored | None:
        """Gives one event, None when the log does not have it."""

    async def first(self, topics: Collection[str] | None = None) -> int:
        """Gives the offset of the oldest event of the named topics or of all, 0 when there is none."""

    async def offset_before(self, time_ms: int) -> int:
        """Gives the offset after which all events were appended at or after `time_ms` (Unix time in milliseconds, of a clock that never
        goes back)."""

    async def drop(self, topic: str) -> int:
        """Removes all events of a topic, durably, and gives how many there were. Its `gone_through` moves."""

    async def trim(self) -> int:
        """Removes a bounded number of the events that retention no longer covers, oldest first, and gives how many; 0: nothing to do."""

    async def close(self) -> None:
        """Makes what was appended durable and lets go of the files; may be called again."""
