"""Remember which events are known already."""


class RepeatWindow:
    """The newest `size` keys, each with the place where it was last seen: a connection, or a line."""

    __slots__ = ("_places", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._places: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<RepeatWindow {len(self)} of {self._size}>"

    def __len__(self) -> int:
        return len(self._places)

    def note(self, key: int, place: int) -> int | None:
        """Record `key` as the newest, seen at `place`. Return the place where it was seen before, None for a new one."""
        known = self._places.pop(key, None)
        self._places[key] = place
        if len(self._places) > self._size:
            del self._places[next(iter(self._places))]
        return known
