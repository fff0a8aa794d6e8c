"""The file descriptors of this process: each connection takes one, and without a free one the gateway could neither accept nor connect."""

import os
import resource
from collections.abc import Callable

from ..policy.refusal import Refusal

_LEAST_MARGIN = 32
_OWN = 64  # what the process needs for itself: listening sockets, the store, its workers' channels

Count = Callable[[], int]
Spare = Callable[[int], int]


def limit_of_process() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31


class Descriptors:
    """Counts the descriptors in use, and says when a connection has to be refused so that some stay free.

    Connections to upstreams are refused earlier than clients' connections: a client should get an answer that says so. Before either is
    refused, what is idle is closed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._margin = max(_LEAST_MARGIN, limit // 16)
        self._own = _OWN
        self._counts: list[Count] = []
        self._spares: list[Spare] = []

    def __repr__(self) -> str:
        return f"<Descriptors {self.in_use} of {self.limit}>"

    @property
    def for_connections(self) -> int:
        """The most that connections may have."""
        return max(1, self.limit - self._own - 2 * self._margin)

    @property
    def in_use(self) -> int:
        """How many are in use, about."""
        used = self._own
        for count in self._counts:
            used += count()
        return used

    def measure_own(self) -> None:
        """Count what is open now as the process's own: call it when all is open that stays open."""
        self._own = max(_OWN, len(os.listdir("/dev/fd")) - sum(count() for count in self._counts))

    def count(self, count: Count, spare: Spare | None = None) -> None:
        """Count what `count` says too. `spare` closes as many of these as it is told, as far as they are idle, and returns how many."""
        self._counts.append(count)
        if spare is not None:
            self._spares.append(spare)

    def refuse_client(self) -> Refusal | None:
        """Return why no client may connect now, None if one may."""
        return self._refusal(self._margin)

    def refuse_upstream(self) -> Refusal | None:
        """Return why no upstream may be asked over another connection now, None if one may."""
        return self._refusal(2 * self._margin)

    def _refusal(self, margin: int) -> Refusal | None:
        missing = self.in_use + margin - self.limit + 1
        for spare in self._spares:
            if missing <= 0:
                return None
            missing -= spare(missing)
        if missing <= 0:
            return None
        detail = f"{self.in_use} files and connections are open, the limit of the process is {self.limit}; retry later"
        return Refusal(503, "overload", detail)
