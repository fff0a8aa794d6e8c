"""How much each client may have a second, for all workers together."""

import hashlib
import mmap
import time
from collections.abc import Callable

COLUMNS = 2**16

_ITEM_BYTES = 8
_BURST_SECONDS = 1.0
_ROUNDING_SECONDS = 1e-6


def columns_of(client: str, key: bytes) -> tuple[int, int]:
    """Gives two columns, of COLUMNS each, for what is counted of a client; nobody without the key can tell who shares them."""
    digest = hashlib.blake2b(client.encode(), digest_size=4, key=key).digest()
    return int.from_bytes(digest[:2]), int.from_bytes(digest[2:])


class Account:
    """What one client has had. `ahead` is by how many seconds it has had more than its rate gives."""

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
        """Gives the seconds until what it has had is paid for; 0 when that is so."""
        return max(0.0, min(self._items[self._one], self._items[self._other]) - self._clock())

    def spend(self, units: int) -> float:
        """Counts what it has; gives how far ahead it is then."""
        now = self._clock()
        until = max(now, min(self._items[self._one], self._items[self._other])) + units * self._seconds_per_unit
        for place in (self._one, self._other):  # a client that shares one of them has gone further, perhaps
            if self._items[place] < until:
                self._items[place] = until
        return until - now


class Rate:
    """So many units a second for each client, in memory that all workers share.

    Of each client it knows one moment, by the clock of the machine: until when what it has had is paid for (the generic cell rate
    algorithm). That stands in two places that its name is hashed to; other clients may share one of them, hardly ever both, so the
    earlier moment is right, or at worst too late. Memory does not grow, whatever addresses come. Two workers that count at the very
    same microsecond may lose one of two counts.
    """

    SIZE = 2 * COLUMNS * _ITEM_BYTES
    """In bytes."""

    def __init__(self, per_second: int, key: bytes, file: int = -1, offset: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self._items: memoryview[float] = memoryview(mmap.mmap(file, self.SIZE, offset=offset)).cast("d")
        self._key = key
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Rate {self.per_second}/s>"

    def account(self, client: str) -> Account:
        """Gives the account of a client."""
        one, other = columns_of(client, self._key)
        return Account(self._items, one, COLUMNS + other, 1 / self.per_second, self._clock)

    def take(self, client: str) -> bool:
        """Tells whether `client` may have a unit now, a second's worth of them at once, and counts it if so."""
        account = self.account(client)
        allowed = self._wait(account) == 0
        if allowed:
            account.spend(1)
        return allowed

    def wait(self, client: str) -> float:
        """Gives the seconds until `client` may have a unit."""
        return self._wait(self.account(client))

    def _wait(self, account: Account) -> float:
        seconds = account.ahead() + 1 / self.per_second - _BURST_SECONDS
        return seconds if seconds > _ROUNDING_SECONDS else 0.0
