"""A queue of things by their weight."""

import heapq
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar


class Weighed(Protocol):
    """Has a weight, which may fall."""

    amount: int


T = TypeVar("T", bound=Weighed)


class HeaviestFirst(Generic[T]):
    """Returns the heaviest first, the oldest of equal ones, though they lose weight meanwhile."""

    __slots__ = ("_heap", "_place")

    def __init__(self, each: Iterable[T]) -> None:
        self._heap: list[tuple[int, int, T]] = [(-one.amount, place, one) for place, one in enumerate(each)]
        self._place = 0
        heapq.heapify(self._heap)

    def __repr__(self) -> str:
        return f"<HeaviestFirst {len(self._heap)}>"

    def pop(self) -> T | None:
        """Return the heaviest, None when none is left."""
        heap = self._heap
        while heap:
            amount, place, one = heap[0]
            if one.amount == -amount:
                heapq.heappop(heap)
                self._place = place
                return one
            heapq.heapreplace(heap, (-one.amount, place, one))
        return None

    def put_back(self, one: T) -> None:
        """Take back what `pop` has just returned."""
        heapq.heappush(self._heap, (-one.amount, self._place, one))
