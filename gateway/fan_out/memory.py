"""What histories hold, all together."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fan_out import FanOut


class Memory:
    """What all histories together may hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._fan_outs: set[FanOut] = set()
        self.bytes = 0
        """What they hold, about."""

    def __repr__(self) -> str:
        return f"<Memory bytes={self.bytes} of {self._limit}>"

    @property
    def blocks(self) -> int:
        """Event blocks that they hold."""
        return sum(fan_out.history.end - fan_out.history.first for fan_out in self._fan_outs)

    def enter(self, fan_out: "FanOut") -> None:
        """Counts a history in."""
        self._fan_outs.add(fan_out)

    def leave(self, fan_out: "FanOut") -> None:
        """Counts it out."""
        self._fan_outs.discard(fan_out)
        self.bytes -= fan_out.counted
        fan_out.counted = 0

    def count(self, fan_out: "FanOut") -> None:
        """Takes note that a history has changed; the largest ones give way when there is too much."""
        if fan_out not in self._fan_outs:
            return
        self.bytes += fan_out.history.cost - fan_out.counted
        fan_out.counted = fan_out.history.cost
        while self.bytes > self._limit:
            largest = max(self._fan_outs, key=lambda each: each.counted)
            if not largest.give_way():
                return
            self.bytes += largest.history.cost - largest.counted
            largest.counted = largest.history.cost


class KeptMemory(Memory):
    """Counts what streams hold, and says when it is too much; what is in a running stream cannot give way."""

    def __init__(self, most_bytes: int, passed: Callable[[], object]) -> None:
        super().__init__(2**62)
        self._most_bytes = most_bytes
        self._passed = passed

    def count(self, fan_out: "FanOut") -> None:
        if fan_out in self._fan_outs:
            cost = fan_out.history.cost
            self.bytes += cost - fan_out.counted
            fan_out.counted = cost
            if self.bytes > self._most_bytes:
                self._passed()
