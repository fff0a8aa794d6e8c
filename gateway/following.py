"""Follows one upstream for whoever subscribes to it."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from eventstream import HEARTBEAT, BlockTooLarge, ConnectionFailed, Event
from eventstream.client import EventSource
from service.traced_source import TracedSource

from .fan_out import FanOut
from .relay import COMPLETE, CUT

OpenSource = Callable[[str, str, Callable[[EventSource], None]], TracedSource]
"""Makes an event source for a path with query, which goes on after an event ID (if it is not empty) and calls what it is given on each
change."""

_ID_FIELD = re.compile(rb"(?:\A|[\r\n])id:")

Outcome = Literal["open", "finished", "refused", "unavailable", "late"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What came of the first attempt to follow an upstream."""

    outcome: Outcome
    """An event stream; 204; an answer that is no event stream; no connection; no answer in time."""
    reason: str = ""


class Following:
    """Follows an upstream and brings its blocks into a fan-out, until the upstream says that there will be no more.

    With `for_subscribers_alone` it reads no faster than they take.
    """

    def __init__(self, open_source: OpenSource, target: str, last_event_id: str, fan_out: FanOut, *, for_subscribers_alone: bool) -> None:
        self.fan_out = fan_out
        self.opening: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        """Is set once, in any case."""
        self.users = 0
        """Requests that wait for it or use it."""
        self.source = open_source(target, last_event_id, self._changed)
        self._for_subscribers_alone = for_subscribers_alone
        self._id = self.source.last_event_id
        self._resuming = bool(self._id)  # whether what comes may be what has come already
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(_report)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.source} {self.fan_out}>"

    async def _follow(self) -> None:
        verdict, reason = CUT, "the gateway failed; its log says why"
        try:
            async for block, event in self.source.parsed_blocks():
                while block.startswith(HEARTBEAT):
                    block = block[len(HEARTBEAT) :]
                id = self.source.last_event_id
                changed = id if id != self._id and id else None
                self._id = id
                if self._resuming and self._repeats(block, event, changed):
                    continue
                self.take(block, event, changed)
                await self.fan_out.room(for_whom=self._for_subscribers_alone)
            verdict, reason = COMPLETE, ""
        except (ConnectionFailed, BlockTooLarge) as error:
            reason = str(error)
        finally:
            self._opened("finished" if verdict == COMPLETE else "refused", reason)
            await self.source.close()
            self.ended(verdict, reason)

    def _changed(self, source: EventSource) -> None:
        if source.state == "open":
            self._opened("open")
            self._resuming = self._resuming or self.source.connections > 1
            self.connected()
        elif source.state == "connecting":
            self._opened("refused" if source.last_status else "unavailable", source.last_error or "")
            self.lost()

    def _repeats(self, block: bytes, event: Event | None, id: str | None) -> bool:
        """Tells whether the upstream sends again what it has sent before: the event it was asked to go on after, or all it has."""
        own = event.id if event is not None and event.id else id
        if own is None and event is None and _ID_FIELD.search(block):
            own = self._id  # a block without data that says the same ID again
        if not own:
            return False
        history = self.fan_out.history
        cursor = history.find(own)
        if cursor is not None and (cursor == history.first or history.block(cursor) == block):  # or it was, but is not kept
            return True
        self._resuming = False
        return False

    def _opened(self, outcome: Outcome, reason: str = "") -> None:
        if not self.opening.done():
            self.opening.set_result(Opening(outcome, reason))

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        """Is given the next block."""
        self.fan_out.append(block, id)

    def connected(self) -> None:
        """Is told that a stream was opened."""

    def lost(self) -> None:
        """Is told that a stream or an attempt is over, and another will be made."""

    def ended(self, verdict: str, reason: str) -> None:
        """Is told that there will be no more."""

    def stop(self) -> None:
        """Ends it; `ended` is called when it has."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Returns when it has ended."""
        await asyncio.wait((self._task,))


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "following an upstream failed", "exception": error, "task": task})
