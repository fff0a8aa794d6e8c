"""What streams take of memory, as they report it to what limits it."""

from collections.abc import Callable
from typing import Protocol

NOBODY = ""
"""The owner of what clients of several owners use together, such as a stream that they share."""


class Holding(Protocol):
    """One thing that is held for an owner."""

    amount: int
    """Bytes that it takes."""

    def set(self, amount: int) -> None:
        """Count that it takes `amount` bytes now."""

    def give_to(self, owner: str) -> None:
        """Count it for another owner from now on."""

    def close(self) -> None:
        """Stop counting it. May be called again."""


class Budget(Protocol):
    """Limits what is held in memory, in all and per owner."""

    def open(self, owner: str, amount: int = 0, *, reclaim: Callable[[], bool] | None = None) -> Holding:
        """Count `amount` bytes for an owner. Over a limit `reclaim` is called; it frees some at once, and returns whether it did."""
