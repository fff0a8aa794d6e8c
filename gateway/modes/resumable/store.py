"""Where kept streams outlive the gateway's memory: what a store takes, gives and promises.

`SqliteStreamStore` in `sqlite_store` is the embedded one; `tests/gateway/stream_store_contract.py` is what any other must pass.
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
"""States of a stream: while it runs, how it ended, and when its blocks are gone because their time was over."""
UNFINISHED = frozenset((CUT, ORPHANED))
"""Ends after which the same Idempotency-Key asks the upstream again. It does not after `STOPPED`, which was wanted, and after `TOO_LARGE`,
which the next answer would be too."""


class StoreError(Exception):
    """The store could not do what was asked; the message says why. Streams go on in memory."""


class StoreInUse(StoreError):
    """Another process has the store open."""


class StreamGaveWay(StoreError):
    """The store has dropped a stream that runs, because it was full: it takes no more of it, and the stream is in memory only."""


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What is known of a stream from its beginning."""

    id: str
    route: str
    """The path prefix of its route."""
    method: str
    target: str
    """Path and query of the request."""
    credentials: bytes
    """A digest of the opener's credentials, empty when there were none."""
    body: bytes
    """A digest of the request's body."""
    key: str
    """Its Idempotency-Key, empty when there was none."""
    fields: Sequence[tuple[str, str]]
    """Header fields of the upstream's response."""
    opened_at: float
    """Unix time."""
    owner: str = ""
    """A short digest of the client that the stream counts for; empty: nobody's."""

    def asks_the_same(self, other: "StreamHead") -> bool:
        """Whether both are of the same request, whoever made it."""
        return (self.route, self.method, self.target, self.body) == (other.route, other.method, other.target, other.body)

    def may_continue(self, other: "StreamHead") -> bool:
        """Whether this request may continue the stream of `other` by an ID of its upstream's, which others may have too."""
        if self.credentials != other.credentials or not self.asks_the_same(other):
            return False
        return bool(self.credentials) or (self.key != "" and self.key == other.key)


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream as the store has it, without its blocks."""

    head: StreamHead
    """Of an expired stream just its id."""
    state: str
    reason: str
    """What happened, when the state alone does not say it; of an expired one, how it had ended."""
    ended_at: float
    """Unix time; 0 while it runs."""
    size: int
    """Of its blocks, as far as the store has them; of an expired one, of those that it had."""
    block_count: int | None
    """How many blocks it has; None: that is not known, because it had not ended when the gateway was killed, or it runs."""
    cost: int | None
    """What its history takes in memory; None: that is not known, for the same reasons."""


class StreamStore(Protocol):
    """Keeps streams through a restart. All methods are called in one event loop and none blocks it.

    Calls for one stream come in the order create, append…, finish, and are done in it, whether or not each is waited for; one whose caller
    is cancelled is done all the same. When one raises StoreError, it and those already made behind it took nothing; they may be made again,
    and nothing may be left out, but after StreamGaveWay nothing of the stream is taken any more. What was running when the store is
    opened is found as cut, with the blocks that had come there.
    """

    async def create(self, head: StreamHead) -> None:
        """Takes a new stream. Raises StoreError, also when its id is not new."""

    async def append(self, id: str, blocks: bytes) -> None:
        """Takes blocks that follow those it has. Raises StoreError, also when the stream does not run there."""

    async def append_all(self, parts: Sequence[tuple[str, bytes]]) -> Sequence[Exception | None]:
        """The same for many streams at once, by their ids; gives for each None, or the error that `append` would have raised."""

    async def finish(
        self, id: str, state: str, reason: str, keep_until: float, *, block_count: int | None = None, cost: int | None = None
    ) -> None:
        """Takes how a stream ended, until when (Unix time) its blocks are kept, how many there are and what they take in memory. A long
        reason is cut short. Raises StoreError, also when the stream does not run there, and ValueError for a state that is no end."""

    async def look_up(self, id: str) -> StoredStream | None:
        """Return what is known of a stream, None when it was never known or is forgotten. Raises StoreError."""

    async def load(self, id: str, take: Callable[[bytes], object]) -> StoredStream | None:
        """Do the same, and give `take` all blocks whose append has ended, none of an expired stream.

        They come in their order and in parts of some hundred kilobytes, each of whole blocks; only the last of a complete stream may be
        unfinished, because its upstream ended behind it. `take` may be called in a thread, and is not called any more when `load` returns.
        Raises StoreError, also when blocks are missing: it never gives less than came."""

    async def find_key(self, route: str, credentials: bytes, key: str) -> str | None:
        """Gives the id of the newest stream with this Idempotency-Key whose blocks have not expired. Raises StoreError."""

    async def find_event(self, head: StreamHead, event_id: str) -> str | None:
        """Gives the id of a stream that the request of `head` may continue behind an event with this ID: with its Idempotency-Key if there
        is one, else the newest of some tens. It has ended, and its blocks have not expired. Raises StoreError."""

    async def expire(self, now: float) -> int:
        """Drops the blocks of streams that are over their time, which is when they expire, and forgets streams whose blocks were dropped a
        day ago, or sooner if there are very many, in bounded steps; gives how many streams it dealt with, 0: nothing to do.
        Raises StoreError."""

    async def close(self) -> None:
        """Writes what it has taken and lets go of its files; may be called again. After it the other methods raise StoreError."""
