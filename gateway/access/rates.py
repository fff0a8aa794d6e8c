"""Limit each client's rate, for all workers together."""

import hashlib
import mmap
import time
from collections.abc import Callable

COLUMNS = 2**16

_ITEM_BYTES = 8
_BURST_SECONDS = 1.0
_ROUNDING_SECONDS = 1e-6


def columns_of(client: str, key: bytes) -> tuple[int, int]:
    """Return a client's two columns, each below COLUMNS. Without the key, clients cannot predict which of them share a column."""
    digest = hashlib.blake2b(client.encode(), digest_size=4, key=key).digest()
    return int.from_bytes(digest[:2]), int.from_bytes(digest[2:])


class Account:
    """One client's use. `ahead` is the number of seconds by which the use exceeds its rate."""

    __slots__ = ("_clock", "_items", "_one", "_other", "_seconds_per_unit")

    def __init__(self, items: "memoryview[float]", one: int, other: int, seconds_per_unit: float, clock: Callable[[], float]) -> None:
        self._items = items
        self._one = one
        self._other = other
        self._seconds_per_unit = seconds_per_unit
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Account ahead={self.ahead():.3f}>"

    def ahead(self) -> float:
        """Return the seconds until the use is within the rate again, at least 0."""
        return max(0.0, min(self._items[self._one], self._items[self._other]) - self._clock())

    def spend(self, units: int) -> float:
        """Count units and return how many seconds the client is then ahead."""
        now = self._clock()
        until = max(now, min(self._items[self._one], self._items[self._other])) + units * self._seconds_per_unit
        for place in (self._one, self._other):  # another client may share one place and be further ahead
            if self._items[place] < until:
                self._items[place] = until
        return until - now


class Rate:
    """A limit of units a second for each client, in memory that all workers share.

    Each client has one time, on the machine's clock, at which its use is within the rate again (the generic cell rate algorithm). It is
    stored in two places, chosen by a hash of the client. Other clients may share one place but hardly ever both, so the earlier time is
    right, or at worst too late. Memory is constant, however many addresses there are. Two workers that count in the same microsecond
    may lose one count.
    """

    SIZE = 2 * COLUMNS * _ITEM_BYTES
    """Size of the shared memory in bytes."""

    def __init__(self, per_second: int, key: bytes, file: int = -1, offset: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._items: memoryview[float] = memoryview(mmap.mmap(file, self.SIZE, offset=offset)).cast("d")
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Rate {self.per_second}/s>"

    def account(self, client: str) -> Account:
        """Return the account of a client."""
        one, other = columns_of(client, self._key)
        return Account(self._items, one, COLUMNS + other, 1 / self.per_second, self._clock)

    def take(self, client: str) -> bool:
        """Count a unit and return True if `client` may have one now. Bursts may use the units of a second at once."""
        account = self.account(client)
        allowed = self._wait(account) == 0
        if allowed:
            account.spend(1)
        return allowed

    def wait(self, client: str) -> float:
        """Return the seconds until `client` may have a unit."""
        return self._wait(self.account(client))

    def _wait(self, account: Account) -> float:
        seconds = account.ahead() + 1 / self.per_second - _BURST_SECONDS
        return seconds if seconds > _ROUNDING_SECONDS else 0.0
