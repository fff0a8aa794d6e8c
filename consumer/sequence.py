"""Conclude from consecutive IDs that events are missing."""

import re

_COUNTED = re.compile(r"(?:(.*)-)?(0|[1-9][0-9]{0,17})", re.DOTALL)


class IdSequence:
    """Follow IDs that count: plain decimals, or `<epoch>-<offset>` with one epoch.

    It concludes something only if all IDs since the sequence began went up by exactly one, and there were at least two. After an ID
    jumped without a reconnection (a filtered topic, a time stamp), this sequence concludes nothing more.
    """

    __slots__ = ("_last", "_last_id", "_prefix", "_sparse", "_steps")

    def __init__(self) -> None:
        self.restart()

    def __repr__(self) -> str:
        return f"<IdSequence last={self._last_id!r} steps={self._steps} sparse={self._sparse}>"

    def restart(self) -> None:
        """Forget everything: the next ID begins a sequence."""
        self._prefix: str | None = None
        self._last: int | None = None
        self._last_id = ""
        self._steps = 0
        self._sparse = False

    def feed(self, id: str) -> None:
        """Add the ID of the next event on the same connection."""
        if id == self._last_id:
            return  # several events may share one ID
        match = _COUNTED.fullmatch(id)
        if match is None:
            self.restart()
            self._sparse = True
            return
        prefix, number = match[1], int(match[2])
        if self._last is not None:
            if prefix == self._prefix and number == self._last + 1:
                self._steps += 1
            else:
                self._sparse = True
        self._prefix, self._last, self._last_id = prefix, number, id

    def recall(self, id: str) -> None:
        """Add an ID from the log, which has no connections: going back begins a new sequence and is no jump."""
        self._leave_for(id)
        self.feed(id)

    def reconnect(self, id: str) -> None:
        """Add the first new ID after a reconnection: a jump forward is the server's, anything else begins a new sequence."""
        self._leave_for(id)
        match = _COUNTED.fullmatch(id)
        if match is not None and self._last is not None:
            self._last = max(int(match[2]) - 1, self._last)
        self.feed(id)

    def _leave_for(self, id: str) -> None:
        match = _COUNTED.fullmatch(id)
        if match is not None and self._last is not None and (match[1] != self._prefix or int(match[2]) < self._last):
            self.restart()

    def missed(self, id: str, *, asked: str) -> int:
        """Return the number of IDs between the last one, if it was `asked` for, and `id`; 0 if unknown."""
        match = _COUNTED.fullmatch(id)
        if match is None or self._last is None or self._sparse or not self._steps or not asked or asked != self._last_id:
            return 0
        return max(int(match[2]) - self._last - 1, 0) if match[1] == self._prefix else 0
