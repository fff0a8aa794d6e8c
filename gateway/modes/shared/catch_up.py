"""Asks the upstream for what a subscriber missed, until that meets the live stream."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from eventstream import Event

from ...access.budget import Holding
from ...streams.fan_out import FanOut
from ...streams.relay import COMPLETE
from ...streams.stamping import has_data
from ...streams.subscriber import Subscriber
from .following import Following, OpenSource

if TYPE_CHECKING:
    from .stream import SharedStream

_WITHOUT_IDS = "the upstream's events have no IDs"
_SKIPPED = "the upstream did not go on after that event"


class CatchUp(Following):
    """A second upstream request of a shared stream, which begins after event `asked` or where `target` says, for all that ask for it.

    When it and the live stream have an event in common, by its ID, it stops reading; each subscriber goes over to the live stream as soon
    as it has had the last block of the catch-up. An upstream that cannot resume makes a gap: one that says so by its answer, one that
    sends events without IDs, and one that takes no notice of the last event ID, which shows when the live stream has events before the
    first one from here.
    """

    def __init__(
        self,
        live: "SharedStream",
        target: str,
        asked: str,
        open_source: OpenSource,
        open_fan_out: Callable[[Callable[[], None]], FanOut],
        place: Holding,
    ) -> None:
        self.asked = asked
        self._target = target
        self.met = False
        """Whether an event has been found that the live stream has as well."""
        self._live = live
        self._first_id = self._last_id = ""
        self._since = 0  # events after the one with the last ID
        self._newest_ends_with_lf = False
        self._join_at: int | None = None  # where its end is in the live history
        self._refused = ""  # why there will be no more from the upstream
        self._skipped = False  # whether some had had the first event when it showed that the upstream had left out others
        super().__init__(open_source, target, asked, open_fan_out(self._moved), live.origin, place, for_subscribers_alone=True)
        if asked:
            self.fan_out.history.begins_after(asked)
        live.catch_ups.add(self)

    def fetches(self, target: str, asked: str) -> bool:
        """Tells whether somebody who joins now gets all that such a request would bring."""
        return (self._target, self.asked) == (target, asked) and self.begin is not None

    @property
    def begin(self) -> int | None:
        """The cursor of its first block, None when somebody who joins now would come too late for it."""
        return None if self._is_over() or self.fan_out.history.first else 0

    def find(self, id: str) -> int | None:
        """Gives the cursor after event `id`, None when it is not here or somebody who joins now would come too late."""
        if self._is_over() or not self.opening.done():  # whoever asked first waits for that, and all begin together
            return None
        return self.fan_out.history.find(id)

    def _is_over(self) -> bool:
        if self._refused or self not in self._live.catch_ups:
            return True
        return self._join_at is not None and self._join_at < self._live.fan_out.history.first

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        if self.met or self._refused:
            return  # read before it was known
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
        if cursor is not None and 2 * (cursor - history.first) >= history.end - history.first:  # not where it is about to be forgotten
            self._meet()

    def _left_out(self, id: str) -> bool:
        """Tells whether the live stream shows that events between `asked` and `id` have not come here."""
        history = self._live.fan_out.history
        cursor = history.find(id)
        if not self.asked or cursor is None or cursor == history.first or history.find(self.asked) is not None:
            return False
        return history.first_id() != id

    def _refuse(self, reason: str) -> None:
        self._refused = reason
        self.stop()

    def meet(self, id: str) -> None:
        """Takes note that the live stream has got event `id`."""
        if self.met:
            self._find_end()
        elif self.fan_out.history.find(id) is not None and id != self.asked:
            self._skipped = id == self._first_id and self._left_out(id)
            self._meet()

    def _meet(self) -> None:
        self.met = True
        self.stop()
        self._find_end()

    def _find_end(self) -> None:
        """Looks where the newest block that was read here is in the live history: it may not have come there yet."""
        if self._join_at is not None:
            return
        history = self._live.fan_out.history
        cursor = history.find(self._last_id)
        events = self._since
        while cursor is not None and events and cursor < history.end:
            cursor += 1
            events -= has_data(history.block(cursor))  # of comments each connection may have its own
        if cursor is None or events:
            return
        if self._newest_ends_with_lf and cursor < history.end and history.block(cursor + 1) == b"\n":
            cursor += 1  # the LF of a CRLF, which came by itself there and with its block here
        self._join_at = cursor
        self._moved()

    def _moved(self) -> None:
        """Lets those who have had everything from here go over to the live stream."""
        if self._join_at is not None or self._refused:
            for subscriber in self.fan_out.at_end():
                subscriber.leave_cohort()
                self.fan_out.leave(subscriber)
                self._hand_over(subscriber)
        if not self.fan_out.subscribers and not self.users:
            self.stop()
            self._close()

    def unused(self) -> None:
        """End it if all who asked for it left before the upstream answered."""
        self._moved()

    def _hand_over(self, subscriber: Subscriber) -> None:
        if self._refused:
            self._live.tell_gap(subscriber, self._last_id or self.asked, self._refused)
            return
        if self._skipped:
            self._live.tell_gap(subscriber, self.asked, _SKIPPED, self._first_id, self._join_at)
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
