"""One history, many subscribers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from .cohorts import Cohorts
from .history import READ_BYTES, UNLIMITED, History, Limits
from .holding import NOBODY, Budget
from .subscriber import BEHIND, Subscriber
from .wheel import TimerWheel

_LAGGING_SECONDS = 0.002  # of each turn of the event loop for lagging subscribers, so that live ones do not wait
_MOST_UNSENT_BYTES = 256 * 1024
_STALLED_SECONDS = 2.0
SAMPLE_EVERY = 64
"""One turn in 64 is timed: reading the clock in each one costs too much."""

_UNCOUNTED_BYTES = 2048  # per stream that the budget may not know of, until the next full turn counts them


class FanOut:
    """Send each block of one history to each subscriber, in order and once, without waiting for any subscriber.

    Blocks appended in one turn of the event loop leave in the next turn, in one write per subscriber. There is no timer.
    `moved` is called after each turn.
    """

    def __init__(
        self,
        limits: Limits,
        wheel: TimerWheel,
        budget: Budget,
        *,
        owner: str = NOBODY,
        heartbeat_ticks: int,
        moved: Callable[[], None] | None = None,
        note_latency: Callable[[float], object] | None = None,
    ) -> None:
        self.history = History(limits, clock=time.monotonic)
        self.holding = budget.open(owner, reclaim=self.reclaim)
        """The history's share of the budget, in bytes."""
        self.subscribers: set[Subscriber] = set()
        self._limits = limits
        self._simple = limits == UNLIMITED and moved is None
        self._wheel = wheel
        self._heartbeat_ticks = heartbeat_ticks
        self._moved = moved
        self._cohorts = Cohorts(self.history, wheel, heartbeat_ticks)
        self._alone: set[Subscriber] = set()
        self._lagging: deque[Subscriber] = deque()  # those of `_alone` that are not paused
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._last_progress = 0.0
        self._room: asyncio.Future[None] | None = None
        self._finish: tuple[str, str] | None = None
        self._note_latency = note_latency
        self._turns = 0
        self._sample: tuple[int, float] | None = None  # (cursor, time): stop the clock when all blocks up to this cursor are written

    def __repr__(self) -> str:
        return f"<FanOut {self.history} subscribers={len(self.subscribers)} lagging={len(self._lagging)}>"

    def append(self, block: bytes, id: str | None = None) -> None:
        """Append the next block. `id` is as in `History.append`."""
        self.history.append(block, id)
        self._schedule()

    def pass_on(self, blocks: Sequence[bytes], ids: Sequence[str | None] = ()) -> None:
        """Append the next blocks, at least one, and send them in this turn of the event loop. For streams with few subscribers.

        `ids` are as in `History.append`, empty when no block has one.
        """
        history, cohorts = self.history, self._cohorts.all
        end, end_bytes = history.end, history.end_bytes
        if ids:
            for block, id in zip(blocks, ids, strict=True):
                history.append(block, id)
        else:
            for block in blocks:
                history.append(block)
        alone = len(cohorts) == 1 and cohorts[0].cursor == end and (len(blocks) == 1 or history.end_bytes - end_bytes <= READ_BYTES)
        if alone and self._simple and not (self._lagging or self._finish or self._room):
            cohorts[0].send(blocks)
            if history.cost - self.holding.amount > _UNCOUNTED_BYTES:
                self.holding.set(history.cost)
        else:
            self._turn()

    def join(self, subscriber: Subscriber, cursor: int | None = None) -> None:
        """Add a subscriber. It gets the blocks after `cursor`, or the live ones if that is None."""
        subscriber.fan_out = self
        self.subscribers.add(subscriber)
        if cursor is not None and cursor < self.history.first:
            subscriber.disconnect(BEHIND, "the blocks after its last event ID are no longer kept")
            return
        if cursor is None:
            cohort = self._cohorts.find(subscriber)
            cursor = cohort.cursor if cohort is not None else self.history.end
        subscriber.cursor = cursor
        self._alone.add(subscriber)
        if not subscriber.paused:
            self._place(subscriber)
        self._schedule()

    def leave(self, subscriber: Subscriber) -> None:
        """Remove a subscriber."""
        self.subscribers.discard(subscriber)
        self._alone.discard(subscriber)
        subscriber.queued = False  # `_catch_up` skips its entry in `_lagging`, and another fan-out may queue it
        self._schedule()

    def paused(self, subscriber: Subscriber) -> None:
        """Serve a subscriber on its own, because its transport's buffer is full."""
        self._last_progress = self._loop.time()  # it accepted bytes until now
        self._alone.add(subscriber)

    def resumed(self, subscriber: Subscriber) -> None:
        """Queue a subscriber to catch up, because its transport has drained."""
        self._last_progress = self._loop.time()
        self._queue(subscriber)

    def at_end(self) -> list[Subscriber]:
        """Return the subscribers that have received every block."""
        end = self.history.end
        members = [member for cohort in self._cohorts.all if cohort.cursor == end for member in cohort.members]
        return members + [subscriber for subscriber in self._alone if subscriber.cursor == end and not subscriber.queued]

    def reclaim(self) -> bool:
        """Drop the oldest segment to free memory, the newest one only if no subscriber is about to get it. Return whether it did."""
        keep = self._cohorts.least_cursor
        if not self.history.drop_oldest(min(keep, self.history.end - 1) if self._lagging else keep):
            return False
        for subscriber in self._behind():
            subscriber.cut_off()
        self.holding.set(self.history.cost)
        return True

    def expire(self) -> None:
        """Drop blocks that are too old. Called from time to time, for idle streams.

        Does nothing while subscribers catch up: one that has just joined at the oldest block is not too slow.
        """
        if not self._lagging:
            self._trim()

    def clear(self, reason: str) -> None:
        """Drop the kept blocks. Live subscribers stay. Those that are behind are disconnected with `reason`, and may reconnect."""
        while (cohort := self._cohorts.furthest_behind()) is not None:
            self._cohorts.flush(cohort)
        self.history.clear(self._cohorts.least_cursor)
        self._close_behind(reason)
        self.holding.set(self.history.cost)

    def finish(self, verdict: str, reason: str = "") -> None:
        """End each subscriber when it has received every block and the history's tail: no more blocks follow."""
        self._finish = (verdict, reason)
        self._schedule()

    def close(self) -> None:
        """Free the memory. Subscribers have ended or joined another fan-out, and none will join.

        The history is freed at once: a stream that has ended is part of a cycle, which the collector may find minutes later.
        """
        self.history.clear(self.history.end)
        self.holding.close()

    async def room(self, *, only_for_subscribers: bool = False) -> None:
        """Return when the next block may be read: at once, unless no subscriber could accept it yet.

        The fastest subscriber sets the pace. If all stall for 2 s, reading goes on without them, unless `only_for_subscribers` is true:
        then the upstream is read for these subscribers alone.
        """
        while self._crowded(only_for_subscribers):
            self._room = self._loop.create_future()
            patience = None if only_for_subscribers else self._loop.call_later(_STALLED_SECONDS, self._wake)
            try:
                await self._room
            finally:
                self._room = None
                if patience is not None:
                    patience.cancel()

    def _crowded(self, only_for_subscribers: bool) -> bool:
        history = self.history
        unsent = None
        for cohort in self._cohorts.occupied:
            sent = history.position(cohort.cursor)
            unsent = min(history.end_bytes - sent, unsent) if unsent is not None else history.end_bytes - sent
        if unsent is not None:
            return unsent > _MOST_UNSENT_BYTES
        if not self.subscribers:
            return only_for_subscribers
        if not only_for_subscribers and self._loop.time() - self._last_progress > _STALLED_SECONDS:
            return False
        best = max(subscriber.cursor for subscriber in self.subscribers)
        if best < history.first:
            return False
        return (
            history.end_bytes - history.position(best) > min(_MOST_UNSENT_BYTES, self._limits.bytes // 2)
            or (history.end - best) * 2 > self._limits.blocks
        )

    def _wake(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _place(self, subscriber: Subscriber) -> None:
        """Move a subscriber into a cohort with its cursor, or queue it to catch up on its own."""
        if self._finish is not None and subscriber.cursor == self.history.end:
            subscriber.end(*self._finish, tail=self.history.tail)
        elif self._cohorts.enter(subscriber):
            self._alone.discard(subscriber)
        else:
            self._queue(subscriber)

    def _queue(self, subscriber: Subscriber) -> None:
        if not subscriber.queued:
            subscriber.queued = True
            self._lagging.append(subscriber)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)
            self._turns += 1
            if not self._turns % SAMPLE_EVERY and self._cohorts.least_cursor < self.history.end:
                self._sample = (self.history.end, perf_counter())

    def _turn(self) -> None:
        """Serve one cohort and some lagging subscribers, and schedule the next turn if more is to be done."""
        self._scheduled = False
        if (cohort := self._cohorts.furthest_behind()) is not None:
            self._cohorts.flush(cohort)
        self._serve_lagging()
        if self._finish is not None:
            for subscriber in self.at_end():
                subscriber.end(*self._finish, tail=self.history.tail)
        if self.history.full:
            self._trim()
        self.holding.set(self.history.cost)
        if self._lagging or self._cohorts.furthest_behind() is not None:
            self._schedule()
        self._wake()
        if self._sample is not None and self._cohorts.least_cursor >= self._sample[0]:
            if self._note_latency is not None:
                self._note_latency(perf_counter() - self._sample[1])
            self._sample = None
        if self._moved is not None:
            self._moved()

    def _serve_lagging(self) -> None:
        lagging = self._lagging
        if not lagging:
            return
        now = time.perf_counter
        until = now() + _LAGGING_SECONDS
        for _ in range(len(lagging)):
            self._catch_up(lagging.popleft())
            if now() > until:
                return

    def _catch_up(self, subscriber: Subscriber) -> None:
        """Send a lagging subscriber the next part of the history."""
        if subscriber.fan_out is not self:
            return
        subscriber.queued = False
        if subscriber.paused:
            return
        cohort = self._cohorts.find(subscriber)
        upto = cohort.cursor if cohort is not None else self.history.end
        if subscriber.cursor < upto:
            data, cursor = self.history.read(subscriber.cursor, upto)
            blocks = cursor - subscriber.cursor
            subscriber.cursor = cursor
            subscriber.write(data, blocks=blocks)
            self._last_progress = self._loop.time()
            if subscriber.paused or subscriber.verdict:
                return
        self._place(subscriber)

    def _trim(self) -> None:
        before = self.history.first
        self.history.trim(self._cohorts.least_cursor)
        if self.history.first > before:
            self._close_behind()
        self.holding.set(self.history.cost)

    def _close_behind(self, reason: str = "it was too slow for the history") -> None:
        for subscriber in self._behind():
            subscriber.disconnect(BEHIND, reason)

    def _behind(self) -> list[Subscriber]:
        first = self.history.first
        return [subscriber for subscriber in self._alone if subscriber.cursor < first]
