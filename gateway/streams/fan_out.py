"""One history, many subscribers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from ..access.budget import NOBODY, Budget
from .cohorts import Cohorts
from .history import READ_BYTES, UNLIMITED, History, Limits
from .subscriber import BEHIND, Subscriber
from .wheel import TimerWheel

_LAGGING_SECONDS = 0.002  # of a turn of the event loop for those who catch up, so that those who are live do not wait
_MOST_UNSENT_BYTES = 256 * 1024
_STALLED_SECONDS = 2.0
SAMPLE_EVERY = 64
"""One turn in 64 is timed: reading the clock costs more than it tells."""

_UNCOUNTED_BYTES = 2048  # that a stream may have beyond what the budget knows, until somebody counts


class FanOut:
    """Brings each block of one history to each subscriber, in order, once, and never waits for one of them.

    `append` takes the blocks. What comes in one turn of the event loop leaves in one write per subscriber, in the next turn; there is no
    timer. `moved` is called after each turn.
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
        self.holding = budget.open(owner, give_way=self.give_way)
        """What the history takes of the budget, in bytes."""
        self.subscribers: set[Subscriber] = set()
        self._limits = limits
        self._simple = limits == UNLIMITED and moved is None
        self._wheel = wheel
        self._heartbeat_ticks = heartbeat_ticks
        self._moved = moved
        self._cohorts = Cohorts(self.history, wheel, heartbeat_ticks)
        self._alone: set[Subscriber] = set()
        self._lagging: deque[Subscriber] = deque()  # of those alone who are not paused
        self._scheduled = False
        self._loop = asyncio.get_running_loop()
        self._last_progress = 0.0
        self._room: asyncio.Future[None] | None = None
        self._finish: tuple[str, str] | None = None
        self._note_latency = note_latency
        self._turns = 0
        self._sample: tuple[int, float] | None = None  # what has come to here at this time is to be written

    def __repr__(self) -> str:
        return f"<FanOut {self.history} subscribers={len(self.subscribers)} lagging={len(self._lagging)}>"

    def append(self, block: bytes, id: str | None = None) -> None:
        """Takes the next block; `id` as in `History.append`."""
        self.history.append(block, id)
        self._schedule()

    def pass_on(self, blocks: Sequence[bytes], ids: Sequence[str | None] = ()) -> None:
        """Takes the next blocks, at least one, and sends them in this very turn of the event loop. For streams with few subscribers. `ids`
        are as in `History.append`, none when no block has one."""
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
        """Takes a subscriber in who wants what comes after `cursor`, or from now on."""
        subscriber.fan_out = self
        self.subscribers.add(subscriber)
        if cursor is not None and cursor < self.history.first:
            subscriber.send_away(BEHIND, "what follows is no longer kept")
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
        """Forgets a subscriber."""
        self.subscribers.discard(subscriber)
        self._alone.discard(subscriber)
        subscriber.queued = False  # its place among those who catch up is empty now, and it may queue elsewhere
        self._schedule()

    def paused(self, subscriber: Subscriber) -> None:
        """Takes note that a subscriber has stopped taking and is alone now."""
        self._last_progress = self._loop.time()  # it took until now
        self._alone.add(subscriber)

    def resumed(self, subscriber: Subscriber) -> None:
        """Takes note that it goes on."""
        self._last_progress = self._loop.time()
        self._queue(subscriber)

    def at_end(self) -> list[Subscriber]:
        """Gives those who have had everything and wait for more."""
        end = self.history.end
        members = [member for cohort in self._cohorts.all if cohort.cursor == end for member in cohort.members]
        return members + [subscriber for subscriber in self._alone if subscriber.cursor == end and not subscriber.queued]

    def give_way(self) -> bool:
        """Forgets a part of the history for the sake of others, of the newest only when nobody is about to get it; gives whether there was
        one to spare."""
        keep = self._cohorts.least_cursor
        if not self.history.drop_oldest(min(keep, self.history.end - 1) if self._lagging else keep):
            return False
        for subscriber in self._behind():
            subscriber.cut_off()
        self.holding.set(self.history.cost)
        return True

    def expire(self) -> None:
        """Forget what is too old. Called from time to time, for streams where nothing happens.

        Subscribers that are being served come first: one that has just joined at the oldest block is not too slow.
        """
        if not self._lagging:
            self._trim()

    def clear(self, reason: str) -> None:
        """Forgets what is kept: those who are live go on, those who are behind are sent away, for `reason`, and may come back for it."""
        while (cohort := self._cohorts.furthest_behind()) is not None:
            self._cohorts.flush(cohort)
        self.history.clear(self._cohorts.least_cursor)
        self._close_behind(reason)
        self.holding.set(self.history.cost)

    def finish(self, verdict: str, reason: str = "") -> None:
        """End each subscriber when it has had everything, the history's tail included: there will be no more."""
        self._finish = (verdict, reason)
        self._schedule()

    def close(self) -> None:
        """Lets go of the memory. Subscribers have been ended or have joined another."""
        self.holding.close()

    async def room(self, *, for_whom: bool = False) -> None:
        """Returns when the next block may come: at once, unless nobody could take it yet.

        Reading goes as fast as the fastest subscriber takes, and waits for no other. Those who all stall are not waited for either,
        unless `for_whom` is true, which is for what is read for these subscribers alone.
        """
        while self._crowded(for_whom):
            self._room = self._loop.create_future()
            patience = None if for_whom else self._loop.call_later(_STALLED_SECONDS, self._wake)
            try:
                await self._room
            finally:
                self._room = None
                if patience is not None:
                    patience.cancel()

    def _crowded(self, for_whom: bool) -> bool:
        history = self.history
        unsent = None
        for cohort in self._cohorts.occupied:
            sent = history.position(cohort.cursor)
            unsent = min(history.end_bytes - sent, unsent) if unsent is not None else history.end_bytes - sent
        if unsent is not None:
            return unsent > _MOST_UNSENT_BYTES
        if not self.subscribers:
            return for_whom
        if not for_whom and self._loop.time() - self._last_progress > _STALLED_SECONDS:
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
        """Let a subscriber go on with a cohort if one is where it is, otherwise catch up by itself."""
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
        """Serves one cohort and some of those who catch up, then lets the event loop turn."""
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
        """Sends a subscriber one part of what it has not had yet."""
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
            subscriber.send_away(BEHIND, reason)

    def _behind(self) -> list[Subscriber]:
        first = self.history.first
        return [subscriber for subscriber in self._alone if subscriber.cursor < first]
