"""Asks the upstream for what a subscriber missed, until that meets the live stream."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from eventstream import Event

from .fan_out import FanOut
from .following import Following, OpenSource
from .relay import COMPLETE

if TYPE_CHECKING:
    from .shared_stream import SharedStream


class CatchUp(Following):
    """A second upstream request of a shared stream, which begins after event `asked` or where `target` says, for all that ask for it.

    When it and the live stream have an event in common, by its ID, it stops reading; each subscriber goes over to the live stream as soon
    as it has had the last block of the catch-up. An upstream that cannot resume, by its answer or because it sends events without IDs,
    makes a gap.
    """

    def __init__(
        self, live: "SharedStream", target: str, asked: str, open_source: OpenSource, open_fan_out: Callable[[Callable[[], None]], FanOut]
    ) -> None:
        self.asked = asked
        self._target = target
        self.met = False
        """Whether an event has been found that the live stream has as well."""
        self._live = live
        self._last_id = ""
        self._since = 0  # blocks after the one with that ID
        self._join_at: int | None = None  # where its end is in the live history
        self._refused = ""
        super().__init__(open_source, target, asked, open_fan_out(self._moved), for_subscribers_alone=True)
        if asked:
            self.fan_out.history.begins_after(asked)
        live.catch_ups.add(self)

    def fetches(self, target: str, asked: str) -> bool:
        """Tells whether somebody who joins now gets all that such a request would bring."""
        return (self._target, self.asked) == (target, asked) and self.begin is not None

    @property
    def begin(self) -> int | None:
        """The cursor of its first block, None when somebody who joins now would come too late for it."""
        return None if self.met or self._refused or self.fan_out.history.first else 0

    def find(self, id: str) -> int | None:
        """Gives the cursor after event `id`, None when it is not here or somebody who joins now would come too late."""
        return None if self._join_at is not None or self._refused else self.fan_out.history.find(id)

    def take(self, block: bytes, event: Event | None, id: str | None) -> None:
        if self.met or self._refused:
            return  # read before it was known
        if event is not None and not self._last_id:
            if self.asked and event.id == self.asked:
                return  # an upstream that begins with the event that the client has
            if not event.id and id is None:
                self._refused = "the upstream's events have no IDs"
                self.stop()
                return
        self.fan_out.append(block, id)
        if not id:
            self._since += 1
            return
        self._last_id = id
        self._since = 0
        if self._live.fan_out.history.find(id) is not None:
            self._meet()

    def meet(self, id: str) -> None:
        """Takes note that the live stream has got event `id`."""
        if self.met:
            self._find_end()
        elif self.fan_out.history.find(id) is not None and id != self.asked:
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
        if cursor is not None and cursor + self._since <= history.end:
            self._join_at = cursor + self._since
            self._moved()

    def _moved(self) -> None:
        """Lets those who have had everything from here go over to the live stream."""
        if self._join_at is not None:
            for subscriber in self.fan_out.at_end():
                subscriber.leave_cohort()
                self.fan_out.leave(subscriber)
                self._live.fan_out.join(subscriber, self._join_at)
        if not self.fan_out.subscribers and not self.users:
            self.stop()
            self._close()

    def _close(self) -> None:
        self._live.catch_ups.discard(self)
        self.fan_out.close()

    def ended(self, verdict: str, reason: str) -> None:
        if self.met:
            return
        subscribers = tuple(self.fan_out.subscribers)
        for subscriber in subscribers:
            if verdict == COMPLETE:
                subscriber.end(verdict)
            else:
                subscriber.leave_cohort()
                self.fan_out.leave(subscriber)
                self._live.tell_gap(subscriber, self._last_id or self.asked, self._refused or reason)
        self._close()
