"""Follow one upstream for its subscribers."""

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eventstream import HEARTBEAT, Event, EventStreamError
from eventstream.client import EventSource
from eventstream.reconnection import Reconnection
from service.traced_source import TracedSource

from ...access.budget import Holding
from ...policy.routes import Route
from ...streams.fan_out import FanOut
from ...streams.heartbeats import without_heartbeats
from ...streams.holding import NOBODY
from ...streams.relay import COMPLETE, CUT
from ...streams.stamping import guard_mark
from .origin import FIRST_SECONDS, Origin
from .pace import Pace, after_loss

OpenSource = Callable[[str, str, Reconnection, Callable[[EventSource], None]], TracedSource]
"""Opens an event source for a path with query. It resumes after an event ID (if that is not empty), reconnects at a pace, and reports each
change to a callback."""

_LINE_ENDS = b"\r\n"
_ID_FIELD = re.compile(rb"(?:\A|[\r\n])id:")

_PASSING = (None, 502, 503, 504)
"""Statuses of an upstream that restarts, or of a proxy in front of it. None: there was no answer."""
_ORIGIN_DECIDES_SECONDS = 86_400.0

Outcome = Literal["open", "finished", "refused", "unavailable", "late", "draining", "retired"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of an attempt to open an upstream stream that has not been open yet."""

    outcome: Outcome
    """In this order: an event stream; 204; another answer; no connection; no answer in time; the gateway is shutting down; the route has
    changed."""
    reason: str = ""
    again_seconds: float = math.inf
    """Time until the next attempt, if the upstream may be restarting."""


class Follower:
    """What an upstream is followed for. A subclass takes the blocks, and reacts to what it needs to."""

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        """Take the next block. `id` is the last event ID if the block changes it."""
        raise NotImplementedError

    def connected(self) -> None:
        """React to an opened stream."""

    def lost(self) -> None:
        """React to the end of a stream or an attempt that will be retried."""

    def ended(self, verdict: str, reason: str) -> None:
        """React to the final end."""

    def unused(self) -> None:
        """React to the end of the last request that used it."""


class Following:
    """Follow an upstream for the subscribers of a fan-out, from `start` until the upstream ends the stream for good.

    With `for_subscribers_alone` it reads no faster than the subscribers receive.

    While a subscriber waits, a lost stream is reconnected after 0.1 to 0.25 s, and after a failed attempt it waits its turn at `origin`.
    The server's `retry` and back-off pace streams without waiting subscribers, and streams that the upstream ends.
    """

    def __init__(
        self,
        follower: Follower,
        open_source: OpenSource,
        target: str,
        last_event_id: str,
        fan_out: FanOut,
        origin: Origin,
        place: Holding,
        *,
        for_subscribers_alone: bool,
    ) -> None:
        self._follower = follower
        self._fan_out = fan_out
        self.place = place
        """Its place in the budget of open streams, until its upstream request has ended."""
        self._origin = origin
        self.opening: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        """The result of the first attempt. It is always set. If subscribers wait for another attempt, a new future replaces it."""
        self.down: Attempt | None = None
        """The result of the newest attempt, while subscribers wait for another one and no stream has been open yet."""
        self.users = 0
        """Number of requests that wait for it or use it."""
        self._pace = Pace()
        self.source = open_source(target, last_event_id, self._pace, self._changed)
        self._for_subscribers_alone = for_subscribers_alone
        self._id = self.source.last_event_id
        self._resuming = bool(self._id)  # whether the next events may be repeated ones
        self._openers = 0  # requests that wait for the opening, or were woken by it and have not joined
        self._begun: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<Following {self.source} {self._fan_out}>"

    def start(self) -> None:
        """Begin to read the upstream."""
        place = self.place
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(_report)
        self._task.add_done_callback(lambda task: place.close())

    async def _follow(self) -> None:
        verdict, reason = CUT, "the gateway failed; its log says why"
        try:
            async for block, event in self.source.parsed_blocks():
                if block.startswith(HEARTBEAT) and not (block := without_heartbeats(block)).strip(_LINE_ENDS):
                    continue  # a block that is only a heartbeat
                block = guard_mark(block)
                id = self.source.last_event_id
                changed = id if id != self._id and id else None
                self._id = id
                if self._resuming and self._repeats(block, event, changed):
                    continue
                if event is not None and self._pace.quiet:
                    self._pace.brought_news()
                if self._openers:
                    await self._openers_begun()
                self._follower.take(block, event, changed)
                del block, event  # they may be large, and the next ones may arrive much later
                await self._fan_out.room(only_for_subscribers=self._for_subscribers_alone)
            verdict, reason = COMPLETE, ""
            self._origin.reached()
        except EventStreamError as error:
            reason = str(error)
            if self.source.last_status not in _PASSING:
                self._origin.reached()
        finally:
            self._origin.leave(self)
            self._opened(Attempt("finished" if verdict == COMPLETE else "refused", reason))
            await self.source.close()
            self._follower.ended(verdict, reason)

    def _changed(self, source: EventSource) -> None:
        self._origin.leave(self)
        if source.state == "open":
            self._origin.reached()
            self.down = None
            self._opened(Attempt("open"))
            self._resuming = self._resuming or self.source.connections > 1
            self._follower.connected()
        elif source.state == "connecting":
            again_seconds = math.inf
            if source.last_status in _PASSING:
                again_seconds = max(source.retry_after_seconds, FIRST_SECONDS)
            elif source.last_loss == "failed":
                self._origin.reached()
            self._hurry()
            self._opened(Attempt("refused" if source.last_status else "unavailable", source.last_error or "", again_seconds))
            self._follower.lost()

    @property
    def last_event_id(self) -> str:
        """The last event ID after the newest block."""
        return self._id

    @property
    def wanted(self) -> bool:
        """Whether it has subscribers or waiting requests."""
        return bool(self.users or self._fan_out.subscribers)

    def used_by(self, owner: str) -> None:
        """Count it for no client from now on, if another client opened it."""
        if owner != self.place.owner:
            self.place.give_to(NOBODY)
            self._fan_out.holding.give_to(NOBODY)

    def enter(self) -> None:
        """Count a request that uses it. The first one speeds up the next attempt at a lost upstream."""
        self.users += 1
        if self.users == 1 and self.source.state == "connecting":
            self._hurry()

    def attempt_in(self, seconds: float) -> None:
        """Reconnect after `seconds`."""
        self.source.attempt_in(seconds)

    def pace_alone(self) -> None:
        """Reconnect at the pace of the server's `retry`."""
        self.source.attempt_in(self._pace.next_delay())

    def _hurry(self) -> None:
        """Reconnect soon if a subscriber waits, unless the upstream has ended the stream or sent `Retry-After`."""
        source = self.source
        if not self.wanted:
            return
        if source.last_loss == "lost":
            self.attempt_in(after_loss(self._pace.setbacks))
        elif source.last_loss == "failed" and source.last_status in _PASSING and not source.retry_after_seconds:
            self.attempt_in(_ORIGIN_DECIDES_SECONDS)
            self._origin.wait(self)

    def _repeats(self, block: bytes, event: Event | None, id: str | None) -> bool:
        """Whether the upstream repeats a block: the event after which it was to resume, or its whole history."""
        if not block.lstrip(_LINE_ENDS):
            return True  # the end of a block that has already arrived
        own = event.id if event is not None and event.id else id
        if own is None and event is None and _ID_FIELD.search(block):
            own = self._id  # a block without data that repeats the ID
        if not own:
            return False
        history = self._fan_out.history
        cursor = history.find(own)
        if cursor is not None and (
            cursor == history.first  # it was received, but is no longer kept
            or history.block(cursor).strip(_LINE_ENDS) == block.strip(_LINE_ENDS)  # the last LF may have arrived separately, or not at all
        ):
            return True
        self._resuming = False
        return False

    def _opened(self, opening: Attempt) -> None:
        if not self.opening.done():
            self.opening.set_result(opening)

    async def opened(self, route: Route) -> Attempt:
        """Wait for a successful attempt, or for a reason to stop waiting.

        A caller that joins without awaiting anything misses no block: the first one is held until all waiting callers have joined.
        """
        if self.opening.done():
            return self.opening.result()
        loop = asyncio.get_running_loop()
        since = loop.time()
        down: Attempt | None = None
        self.users += 1  # otherwise it might end without subscribers
        self._openers += 1
        try:
            while True:
                awaited, down = self.opening, self.down
                most_seconds = route.first_byte_timeout_seconds if down is None else route.wait_seconds
                async with asyncio.timeout_at(since + most_seconds if most_seconds else None):
                    opening = await asyncio.shield(awaited)
                if self.opening is awaited:
                    return opening
        except TimeoutError:
            return down or Attempt("late", "timed out waiting for the head of its answer")
        finally:
            self.users -= 1
            loop.call_soon(self._opener_begun)

    def _opener_begun(self) -> None:
        """Stop counting a request that waited for the opening, one turn of the event loop after it could join."""
        self._openers -= 1
        if not self._openers and self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        if not self.users:
            self._follower.unused()

    async def _openers_begun(self) -> None:
        """Wait until all requests that waited for the opening have joined, because an upstream may send events with its head."""
        while self._openers:
            self._begun = asyncio.get_running_loop().create_future()
            await self._begun

    def wait_on(self) -> None:
        """Make callers of `opened` wait for the next attempt."""
        self.down = self.opening.result()
        self.opening = asyncio.get_running_loop().create_future()

    def give_up(self, opening: Attempt) -> None:
        """End it, with `opening` as the reason for those that wait."""
        self._opened(opening)
        self.stop()

    def stop(self) -> None:
        """End it. The follower hears of it afterwards."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait until it has ended."""
        await asyncio.wait((self._task,))


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "following an upstream failed", "exception": error, "task": task})
