"""One open downstream response of a stream that others may follow too: a cursor in its history."""

import asyncio
import random
from typing import Protocol

from eventstream import encode_retry

from .error_event import error_block
from .flow import Connection, http_chunk
from .heartbeats import Shown
from .holding import Budget, Holding
from .relay import LEFT
from .stamping import place_ahead
from .wheel import TimerWheel

BEHIND = "behind"
"""The subscriber was so slow that the history no longer has its next block."""
EXPIRED = "expired"
"""The connection reached the route's `max_connection_seconds`."""

Kind = tuple[bool, Shown, bytes]
"""What subscribers must have in common to get the same bytes: whether they get HTTP chunks, what their clients have received so far, and
which line is to be placed before their next block with data."""

_Line = bytes  # `Group` has an attribute of that name
_FOR_MEMORY = "it was too slow, and the gateway needed the memory"
_USUAL_UNSENT_BYTES = 128 * 1024  # a transport's high-water mark and one write of blocks of usual size
RETURN_AFTER_MS = 1000
RETURN_SPREAD_MS = 4000


class Group(Protocol):
    """Subscribers with the same cursor, which get the same bytes."""

    cursor: int
    bytes: int
    heartbeats: int
    shown: Shown
    ahead: _Line

    def __len__(self) -> int: ...

    def add(self, subscriber: "Subscriber") -> None: ...

    def remove(self, subscriber: "Subscriber") -> None: ...


class Feed(Protocol):
    """Feeds subscribers from one history."""

    def paused(self, subscriber: "Subscriber") -> None: ...

    def resumed(self, subscriber: "Subscriber") -> None: ...

    def leave(self, subscriber: "Subscriber") -> None: ...


class Subscriber:
    """A response that gets whole blocks, first from the history, then live with its cohort.

    It is in a cohort while its transport accepts more. Otherwise it is on its own: paused while its transport is full, lagging until it has
    caught up. While it is paused, its unsent bytes beyond 128 KiB count in the budget `unsent`. It is cut off when they exceed it.
    """

    __slots__ = (
        "_blocks",
        "_bytes",
        "_chunked",
        "_expires",
        "_heartbeats",
        "_owner",
        "_transport",
        "_unsent",
        "_unsent_budget",
        "_waiter",
        "_wheel",
        "ahead",
        "cohort",
        "cursor",
        "fan_out",
        "paused",
        "queued",
        "reason",
        "shown",
        "slot",
        "takes_retry",
        "verdict",
        "write_to_transport",
    )

    def __init__(
        self,
        transport: Connection,
        wheel: TimerWheel,
        *,
        chunked: bool,
        takes_retry: bool,
        unsent: Budget,
        owner: str,
        resumes: bool = False,
        expires: int = 0,
    ) -> None:
        """Use an open connection. `owner` is the client that its memory counts for. `resumes` says that the client sent a last event ID."""
        self._transport = transport
        self.write_to_transport = transport.write
        self._wheel = wheel
        self._unsent_budget = unsent
        self._unsent: Holding | None = None
        self._owner = owner
        self._chunked = chunked
        self._waiter: asyncio.Future[None] | None = None
        self._blocks = self._bytes = self._heartbeats = 0  # without those in its cohort
        self._expires = expires
        self.takes_retry = takes_retry
        """Whether a `retry` line may precede a block."""
        self.shown = Shown.ID if resumes else Shown.BLOCKS
        """What its client has received so far, while it is in no cohort."""
        self.ahead = b""
        """An `id:` line to place before its next block with data, while it is in no cohort."""
        self.fan_out: Feed | None = None
        self.cohort: Group | None = None
        self.cursor = 0
        """Its cursor, while it is in no cohort."""
        self.paused = False
        self.queued = False
        """Whether it is queued to catch up."""
        self.verdict = ""
        """How it ended; empty while it is open."""
        self.reason = ""
        self.slot = 0
        if expires:
            wheel.add(self, expires)

    def __repr__(self) -> str:
        return f"<Subscriber {self.verdict or ('paused' if self.paused else 'live' if self.cohort else 'lagging')}>"

    @property
    def chunked(self) -> bool:
        """Whether it gets HTTP chunks."""
        return self._chunked

    @property
    def kind(self) -> Kind:
        """The kind of cohort that it can join."""
        return self._chunked, self.shown, self.ahead

    @property
    def blocks_out(self) -> int:
        """Blocks written in total."""
        return self._blocks + (self.cohort.cursor if self.cohort is not None else 0)

    @property
    def bytes_out(self) -> int:
        """Bytes of blocks and heartbeats written."""
        return self._bytes + (self.cohort.bytes if self.cohort is not None else 0)

    @property
    def heartbeats(self) -> int:
        """Heartbeats written."""
        return self._heartbeats + (self.cohort.heartbeats if self.cohort is not None else 0)

    def enter(self, cohort: Group) -> None:
        """Join a cohort with the same cursor."""
        self._blocks -= cohort.cursor
        self._bytes -= cohort.bytes
        self._heartbeats -= cohort.heartbeats
        self.cohort = cohort
        cohort.add(self)

    def leave_cohort(self) -> None:
        """Leave the cohort, if it is in one, and keep its cursor."""
        cohort = self.cohort
        if cohort is not None:
            self._blocks += cohort.cursor
            self._bytes += cohort.bytes
            self._heartbeats += cohort.heartbeats
            self.cursor = cohort.cursor
            self.shown, self.ahead = cohort.shown, cohort.ahead
            self.cohort = None
            cohort.remove(self)

    def write(self, data: bytes, *, blocks: int = 1) -> None:
        """Write whole blocks for this subscriber alone. With `blocks=0` write lines that belong to the next block."""
        if self._transport.is_closing():
            return  # the client has disconnected, and aiohttp is about to report it
        if self.ahead and blocks:
            data, self.ahead = place_ahead(self.ahead, data)
        if self.shown is not Shown.ID:
            self.shown = self.shown.then(data, whole=blocks > 0)
        self._blocks += blocks
        self._bytes += len(data)
        self._transport.write(http_chunk(data) if self._chunked else data)

    def pause(self) -> None:
        """Leave the cohort: the transport's buffer is full."""
        self.paused = True
        self._hold_unsent()
        self.leave_cohort()
        if self.fan_out is not None:
            self.fan_out.paused(self)

    def _hold_unsent(self) -> None:
        """Count the transport's unsent bytes beyond the usual. Members of a cohort share the same bytes."""
        size = self._transport.get_write_buffer_size() - _USUAL_UNSENT_BYTES
        if size > 0 and self._unsent is None:
            members = len(self.cohort) if self.cohort is not None else 1
            self._unsent = self._unsent_budget.open(self._owner, size // members, reclaim=self.cut_off)

    def cut_off(self) -> bool:
        """End it to free the memory that its transport holds. The client resumes by its last event ID."""
        if self._unsent is None:
            self.disconnect(BEHIND, _FOR_MEMORY)
        else:
            self.end(BEHIND, _FOR_MEMORY)
            self._transport.abort()
        return True

    def _release_unsent(self) -> None:
        if self._unsent is not None:
            self._unsent.close()
            self._unsent = None

    def resume(self) -> None:
        """Catch up: the transport has drained."""
        self.paused = False
        self._release_unsent()
        if self.fan_out is not None:
            self.fan_out.resumed(self)

    def lost(self) -> None:
        """End it: the client disconnected."""
        self.end(LEFT)

    def end(self, verdict: str, reason: str = "", *, tail: bytes = b"") -> None:
        """End it, after writing the unfinished block `tail` if there is one. The first verdict stands."""
        if self.verdict:
            return
        if tail:
            self.write(tail, blocks=0)
        self.verdict = verdict
        self.reason = reason
        self._release_unsent()
        if self.slot:
            self._wheel.remove(self)
            self.slot = 0
        self.leave_cohort()
        if self.fan_out is not None:
            self.fan_out.leave(self)
            self.fan_out = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def send_error(self, *, ui_messages: bool = False) -> None:
        """Write the error event with the reason, for a client of the AI SDK's `ui_messages` or any other."""
        self.write(error_block(self.reason, ui_messages=ui_messages))

    def send_retry(self, milliseconds: int) -> None:
        """Write a `retry` line, for the end of the stream."""
        self.write(encode_retry(milliseconds), blocks=0)

    def send_retry_ahead(self, milliseconds: int) -> None:
        """Write a `retry` line before the next block, unless the client may expect `data` where a block begins."""
        if self.takes_retry:
            self.send_retry(milliseconds)

    def send_id_ahead(self, id: str) -> None:
        """Place an `id:` line before the next block with data, unless the client may expect `data` there."""
        if self.takes_retry:
            self.ahead = b"id: %b\n" % id.encode()

    def disconnect(self, verdict: str, reason: str = "") -> None:
        """Send a random `retry` time, then end it."""
        if not self.verdict:
            self.leave_cohort()
            self.send_retry(random.randint(RETURN_AFTER_MS, RETURN_AFTER_MS + RETURN_SPREAD_MS))
            self.end(verdict, reason)

    def fire(self, now: int) -> int:
        """End it if its time is up."""
        if now < self._expires:
            return self._expires
        self.disconnect(EXPIRED)
        return 0

    def ended(self) -> asyncio.Future[None]:
        """Return a future that resolves when the subscriber has ended."""
        self._waiter = asyncio.get_running_loop().create_future()
        if self.verdict:
            self._waiter.set_result(None)
        return self._waiter
