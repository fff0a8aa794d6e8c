"""Remember which events are known already."""


class RepeatWindow:
    """The newest `size` keys, each with the connection on which it was last seen."""

    __slots__ = ("_connections", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._connections: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<RepeatWindow {len(self)} of {self._size}>"

    def __len__(self) -> int:
        return len(self._connections)

    def note(self, key: int, connection: int) -> int | None:
        """Record `key` as the newest, seen on `connection`. Return the connection on which it was seen before, None for a new one."""
        known = self._connections.pop(key, None)
        self._connections[key] = connection
        if len(self._connections) > self._size:
            del self._connections[next(iter(self._connections))]
        return known
