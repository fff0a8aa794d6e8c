"""Find the newest stream that this process has opened for a key or a name."""

from collections.abc import Callable

from .opening import Opening
from .store import StreamHead

_Place = tuple[str, bytes, str]


class OpeningIndex:
    """The newest opening for each value of `value_of`, within the same route and credentials. Heads without a value are left out."""

    def __init__(self, value_of: Callable[[StreamHead], str]) -> None:
        self._value_of = value_of
        self._newest: dict[_Place, Opening] = {}

    def __repr__(self) -> str:
        return f"<OpeningIndex {len(self._newest)}>"

    def find(self, head: StreamHead) -> Opening | None:
        """Return the newest opening with the same value, or None."""
        return self._newest.get(self._place(head))

    def put(self, opening: Opening) -> Opening | None:
        """Add an opening as the newest one, and return the one that it replaces, if any."""
        place = self._place(opening.head)
        older = self._newest.get(place)
        if place[2]:
            self._newest[place] = opening
        return older

    def forget(self, head: StreamHead) -> None:
        """Remove the opening of this head, unless a newer one has replaced it."""
        place = self._place(head)
        newest = self._newest.get(place)
        if newest is not None and newest.head.id == head.id:
            del self._newest[place]

    def _place(self, head: StreamHead) -> _Place:
        return head.route, head.credentials, self._value_of(head)
