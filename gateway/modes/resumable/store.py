"""The interface of a store for kept streams, and its guarantees.

`SqliteStreamStore` in `sqlite_store` is the embedded store. Any other must pass `tests/gateway/stream_store_contract.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

RUNNING = "running"
COMPLETE = "complete"
CUT = "cut"
STOPPED = "stopped"
ORPHANED = "orphaned"
TOO_LARGE = "too-large"
EXPIRED = "expired"
"""States of a stream: running, the ways in which it ended, and expired, after which its blocks are gone."""
UNFINISHED = frozenset((CUT, ORPHANED))
"""Ends after which the same Idempotency-Key sends a new upstream request. It does not after `STOPPED`, which a client wanted, or after
`TOO_LARGE`, which the next answer would be too."""


class StoreError(Exception):
    """The store failed; the message says why. Streams go on in memory."""


class StoreInUse(StoreError):
    """Another process has the store open."""


class StreamEvicted(StoreError):
    """The store was full and has dropped a running stream. It takes no more of it, and the stream is in memory only."""


@dataclass(frozen=True, slots=True)
class StreamHead:
    """The facts about a stream that are known from its beginning."""

    id: str
    route: str
    """The path prefix of its route."""
    method: str
    target: str
    """Path and query of the request."""
    credentials: bytes
    """Digest of the credentials of the client that opened it; empty without any."""
    body: bytes
    """Digest of the request's body."""
    key: str
    """Its Idempotency-Key; empty without one."""
    fields: Sequence[tuple[str, str]]
    """Header fields of the upstream's response."""
    opened_at: float
    """Unix time."""
    owner: str = ""
    """Short digest of the client that the stream counts for; empty: no client."""
    name: str = ""
    """Its name; empty without one. Of a name the newest stream counts."""

    def asks_the_same(self, other: "StreamHead") -> bool:
        """Whether both come from equal requests, of any client."""
        return (self.route, self.method, self.target, self.body) == (other.route, other.method, other.target, other.body)

    def may_continue(self, other: "StreamHead") -> bool:
        """Whether this request may resume the stream of `other` by an ID of its upstream's. Such an ID is no proof: others may have it."""
        if self.credentials != other.credentials or not self.asks_the_same(other):
            return False
        return bool(self.credentials) or (self.key != "" and self.key == other.key)


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream in the store, without its blocks."""

    head: StreamHead
    """Its head; only the ID if it has expired."""
    state: str
    reason: str
    """Details that the state alone does not give; for an expired stream, how it ended."""
    ended_at: float
    """Unix time; 0 while it runs."""
    size: int
    """Bytes of its stored blocks; for an expired stream, of those that it had."""
    block_count: int | None
    """Number of its blocks, or None if that is unknown: it runs, or it ran when the gateway was killed."""
    cost: int | None
    """Bytes that its history takes in memory, or None if that is unknown, for the same reasons."""


class StreamStore(Protocol):
    """A store that keeps streams across a restart. All methods are called in one event loop, and none blocks it.

    Calls for one stream come in the order create, append…, finish, and take effect in this order, even if the caller does not await each.
    A call takes effect even if its caller is cancelled. If a call raises StoreError, neither it nor the calls made after it took effect.
    The caller must repeat all of them. After StreamEvicted the store takes nothing more of the stream. A stream that was running when the
    store is opened is found as cut, with the blocks that were stored.
    """

    async def create(self, head: StreamHead) -> None:
        """Add a new stream. Raises StoreError, also if its ID is not new."""

    async def name(self, id: str, name: str) -> None:
        """Set the name of a stream that was created without one. Raises StoreError, also if the stream does not run in the store."""

    async def append(self, id: str, blocks: bytes) -> None:
        """Append the next blocks. Raises StoreError, also if the stream does not run in the store."""

    async def append_all(self, parts: Sequence[tuple[str, bytes]]) -> Sequence[Exception | None]:
        """Append to many streams at once, by their IDs. Return for each None, or the error that `append` would raise."""

    async def finish(
        self, id: str, state: str, reason: str, keep_until: float, *, block_count: int | None = None, cost: int | None = None
    ) -> None:
        """Record how a stream ended, the Unix time until which its blocks are kept, their number, and their bytes in memory.

        A long reason is truncated. Raises StoreError, also if the stream does not run in the store, and ValueError if `state` is not an
        end.
        """

    async def look_up(self, id: str) -> StoredStream | None:
        """Return a stream, or None if it is unknown or forgotten. Raises StoreError."""

    async def load(self, id: str, take: Callable[[bytes], object]) -> StoredStream | None:
        """Do the same, and call `take` with all blocks whose append has ended. An expired stream has none.

        They come in order, in parts of some hundred kilobytes of whole blocks. Only the last block of a complete stream may be unfinished,
        because its upstream ended there. `take` may be called in a thread, but not after `load` has returned.
        Raises StoreError, also if blocks are missing: `take` never gets fewer blocks than were appended.
        """

    async def find_key(self, route: str, credentials: bytes, key: str) -> str | None:
        """Return the ID of the newest stream with this Idempotency-Key that has not expired, or None. Raises StoreError."""

    async def find_name(self, route: str, credentials: bytes, name: str) -> str | None:
        """Return the ID of the newest stream with this name that has not expired, or None. Raises StoreError."""

    async def find_event(self, head: StreamHead, event_id: str) -> str | None:
        """Return the ID of an ended, unexpired stream that the request of `head` may resume after this event ID, or None.

        One with its Idempotency-Key comes first, then the newest. Only some tens of streams are searched.
        Raises StoreError.
        """

    async def expire(self, now: float) -> int:
        """Expire streams whose time is over, which drops their blocks, and forget streams that expired a day ago.

        If there are very many, they are forgotten sooner. The work is done in bounded steps. Return the number of streams handled; 0:
        nothing to do.
        Raises StoreError.
        """

    async def close(self) -> None:
        """Write all pending calls and close the files. Further calls do nothing. The other methods raise StoreError afterwards."""
