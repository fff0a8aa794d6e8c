"""Request missed events from the upstream, until they meet the live stream."""

from collections.abc import Callable
from typing import Protocol

from eventstream import Event

from ...access.budget import Holding
from ...streams.fan_out import FanOut
from ...streams.relay import COMPLETE
from ...streams.stamping import has_data
from ...streams.subscriber import Subscriber
from .following import Follower, Following, OpenSource
from .origin import Origin

_WITHOUT_IDS = "the upstream's events have no IDs"
_SKIPPED = "the upstream did not go on after that event"


class Live(Protocol):
    """The live stream that a catch-up meets."""

    fan_out: FanOut
    origin: Origin
    catch_ups: set["CatchUp"]

    def send_gap(
        self, subscriber: Subscriber, asked: str, reason: str, first_retained: str | None = None, begin: int | None = None
    ) -> None:
        """Tell a subscriber what it misses, and let it go on from `begin`, by default with all that is kept."""


class CatchUp(Follower):
    """A second upstream request of a shared stream, from event `asked` or the beginning in `target`, for all subscribers that need it.

    When it has an event ID in common with the live stream, it stops reading. Each subscriber moves to the live stream once it has received
    the last block of the catch-up. An upstream that cannot resume causes a gap. It may say so by its answer, send events without IDs, or
    ignore the last event ID. The last case shows when the live stream has events between `asked` and the first one here.
    """

    def __init__(
        self,
        live: Live,
        target: str,
        asked: str,
        open_source: OpenSource,
        open_fan_out: Callable[[Callable[[], None]], FanOut],
        place: Holding,
    ) -> None:
        self.asked = asked
        self._target = target
        self.met = False
        """Whether it has an event in common with the live stream."""
        self._live = live
        self._first_id = self._last_id = ""
        self._since = 0  # events after the one with the last ID
        self._newest_ends_with_lf = False
        self._join_at: int | None = None  # cursor of its end in the live history
        self._refused = ""  # why no more blocks are taken
        self._skipped = False  # whether the upstream left out events before the first one, which was sent already
        self.fan_out = open_fan_out(self._moved)
        self.following = Following(self, open_source, target, asked, self.fan_out, live.origin, place, for_subscribers_alone=True)
        if asked:
            self.fan_out.history.begins_after(asked)
        live.catch_ups.add(self)

    def fetches(self, target: str, asked: str) -> bool:
        """Whether a new subscriber gets all blocks of a request for `target` after event `asked`."""
        return (self._target, self.asked) == (target, asked) and self.begin is not None

    @property
    def begin(self) -> int | None:
        """The cursor of its first block, or None if it is too late to join."""
        return None if self._is_over() or self.fan_out.history.first else 0

    def find(self, id: str) -> int | None:
        """Return the cursor after event `id`, or None if it is not here or it is too late to join."""
        if self._is_over() or not self.following.opening.done():  # those that opened it wait for its opening, and all begin together
            return None
        return self.fan_out.history.find(id)

    def _is_over(self) -> bool:
        if self._refused or self not in self._live.catch_ups:
            return True
        return self._join_at is not None and self._join_at < self._live.fan_out.history.first

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        if self.met or self._refused:
            return  # read before it was met or refused
        if event is not None and not self._last_id and not event.id and id is None:
            self._refuse(_WITHOUT_IDS)
            return
        if id and not self._first_id:
            self._first_id = id
            if self._left_out(id):
                self._refuse(_SKIPPED)
                return
        self.fan_out.append(block, id)
        self._newest_ends_with_lf = block.endswith(b"\n")
        if not id:
            self._since += has_data(block)
            return
        self._last_id = id
        self._since = 0
        history = self._live.fan_out.history
        cursor = history.find(id)
        if (
            cursor is not None and 2 * (cursor - history.first) >= history.end - history.first
        ):  # not in the older half, which is about to be dropped
            self._meet()

    def _left_out(self, id: str) -> bool:
        """Whether the live stream shows that the upstream left out events between `asked` and `id`."""
        history = self._live.fan_out.history
        cursor = history.find(id)
        if not self.asked or cursor is None or cursor == history.first or history.find(self.asked) is not None:
            return False
        return history.first_id() != id

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self.following.stop()

    def meet(self, id: str) -> None:
        """Handle event `id` of the live stream."""
        if self.met:
            self._find_end()
        elif self.fan_out.history.find(id) is not None and id != self.asked:
            self._skipped = id == self._first_id and self._left_out(id)
            self._meet()

    def _meet(self) -> None:
        self.met = True
        self.following.stop()
        self._find_end()

    def _find_end(self) -> None:
        """Find the newest block of the catch-up in the live history. It may not have arrived there yet."""
        if self._join_at is not None:
            return
        history = self._live.fan_out.history
        cursor = history.find(self._last_id)
        events = self._since
        while cursor is not None and events and cursor < history.end:
            cursor += 1
            events -= has_data(history.block(cursor))  # comments may differ between connections
        if cursor is None or events:
            return
        if self._newest_ends_with_lf and cursor < history.end and history.block(cursor + 1) == b"\n":
            cursor += 1  # the LF of a CRLF, a block of its own there and part of its block here
        self._join_at = cursor
        self._moved()

    def _moved(self) -> None:
        """Move subscribers that have received every block here to the live stream."""
        if self._join_at is not None or self._refused:
            for subscriber in self.fan_out.at_end():
                subscriber.leave_cohort()
                self.fan_out.leave(subscriber)
                self._hand_over(subscriber)
        if not self.fan_out.subscribers and not self.following.users:
            self.following.stop()
            self._close()

    def unused(self) -> None:
        """End it if all requests for it left before the upstream answered."""
        self._moved()

    def _hand_over(self, subscriber: Subscriber) -> None:
        if self._refused:
            self._live.send_gap(subscriber, self._last_id or self.asked, self._refused)
            return
        if self._skipped:
            self._live.send_gap(subscriber, self.asked, _SKIPPED, self._first_id, self._join_at)
        else:
            self._live.fan_out.join(subscriber, self._join_at)

    def _close(self) -> None:
        self._live.catch_ups.discard(self)
        self.fan_out.close()

    def ended(self, verdict: str, reason: str) -> None:
        if self.met:
            return
        self._refused = self._refused or reason or "the upstream has no more"
        if verdict == COMPLETE:
            for subscriber in tuple(self.fan_out.subscribers):
                subscriber.end(verdict)
        self._moved()
