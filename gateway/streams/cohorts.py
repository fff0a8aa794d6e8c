"""All cohorts of one history."""

from collections.abc import Iterable

from .cohort import MOST_MEMBERS, Cohort
from .history import History
from .subscriber import Subscriber
from .wheel import TimerWheel


class Cohorts:
    """Find each subscriber a cohort of its kind. All members of a cohort get equal bytes, HTTP chunks and heartbeats included."""

    def __init__(self, history: History, wheel: TimerWheel, heartbeat_ticks: int) -> None:
        self._history = history
        self._wheel = wheel
        self._heartbeat_ticks = heartbeat_ticks
        self.all: list[Cohort] = []
        """All cohorts. Empty ones are reused."""

    def __repr__(self) -> str:
        return f"<Cohorts {self.all}>"

    @property
    def occupied(self) -> Iterable[Cohort]:
        """Cohorts with members, oldest first."""
        return (cohort for cohort in self.all if cohort)

    @property
    def least_cursor(self) -> int:
        """The least cursor of all cohorts, or the end of the history if they are empty."""
        return min((cohort.cursor for cohort in self.occupied), default=self._history.end)

    def find(self, subscriber: Subscriber) -> Cohort | None:
        """Return a cohort of the subscriber's kind that has room, at any cursor. Return None if there is none."""
        kind = subscriber.kind
        return next((cohort for cohort in self.occupied if cohort.kind == kind and len(cohort) < MOST_MEMBERS), None)

    def enter(self, subscriber: Subscriber) -> bool:
        """Move a subscriber into a cohort with the same cursor, or return False if there is none. There is one at the history's end."""
        cohort = self.find(subscriber)
        if cohort is None:
            if subscriber.cursor != self._history.end:
                return False
            cohort = self._open(subscriber)
        if subscriber.cursor != cohort.cursor:
            return False
        subscriber.enter(cohort)
        return True

    def _open(self, subscriber: Subscriber) -> Cohort:
        cohort = next((cohort for cohort in self.all if not cohort), None)
        if cohort is None:
            cohort = Cohort(self._history, self._wheel, self._heartbeat_ticks)
            self.all.append(cohort)
        cohort.kind = subscriber.kind
        cohort.cursor = self._history.end
        return cohort

    def furthest_behind(self) -> Cohort | None:
        """Return the cohort with the least cursor, the oldest of equal ones: live subscribers do not wait for those that just reconnected.

        Return None if all cohorts are at the end of the history.
        """
        end = self._history.end
        return min((cohort for cohort in self.occupied if cohort.cursor < end), key=lambda cohort: cohort.cursor, default=None)

    def flush(self, cohort: Cohort) -> None:
        """Send a cohort its next blocks. Merge it with another cohort that now has the same kind and cursor."""
        cohort.flush()
        if len(self.all) == 1 or not cohort:
            return
        for other in self.occupied:
            alike = other is not cohort and (other.kind, other.cursor) == (cohort.kind, cohort.cursor)
            if alike and len(other) + len(cohort) <= MOST_MEMBERS:
                small, large = (cohort, other) if len(cohort) < len(other) else (other, cohort)
                for member in small.members:
                    member.leave_cohort()
                    member.enter(large)
                return
