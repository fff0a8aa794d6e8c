"""How many requests may be open."""

import hashlib
import mmap
from collections import Counter
from collections.abc import Sequence

from .refusal import Refusal

_COLUMNS = 2**16
_ROW = 1 + 2 * _COLUMNS
_ITEM_BYTES = 4


class OpenCounts:
    """What each of several workers has open, in memory that they share: a worker writes its own row and reads all.

    A client's count stands in two columns that its address is hashed to; other clients may share one of them, hardly ever both, so the
    smaller sum is right, or at worst too high. Readers may be a request behind.
    """

    def __init__(self, file: int, key: bytes, workers: int, own: int) -> None:
        self._memory = mmap.mmap(file, workers * _ROW * _ITEM_BYTES)
        self._items = memoryview(self._memory).cast("i")
        self._key = key
        self._own = own * _ROW
        self._others = [row * _ROW for row in range(workers) if row != own]

    @staticmethod
    def size(workers: int) -> int:
        """Gives how many bytes the shared file must have."""
        return workers * _ROW * _ITEM_BYTES

    def add(self, client: str, step: int) -> None:
        """Counts `step` requests of `client` more in this worker's row."""
        self._items[self._own] += step
        for column in self._columns(client):
            self._items[self._own + column] += step

    def elsewhere(self) -> int:
        """Gives how many requests the other workers have open."""
        return sum(self._items[row] for row in self._others)

    def elsewhere_of(self, client: str) -> int:
        """Gives how many of them are `client`'s."""
        return min(sum(self._items[row + column] for row in self._others) for column in self._columns(client))

    def clear(self, worker: int) -> None:
        """Counts out what a worker that is gone had open."""
        start = worker * _ROW * _ITEM_BYTES
        self._memory[start : start + _ROW * _ITEM_BYTES] = bytes(_ROW * _ITEM_BYTES)

    def _columns(self, client: str) -> Sequence[int]:
        digest = hashlib.blake2b(client.encode(), digest_size=4, key=self._key).digest()
        return 1 + int.from_bytes(digest[:2]), 1 + _COLUMNS + int.from_bytes(digest[2:])


class Admission:
    """Counts open requests, in all and by client address; with `shared`, over all workers."""

    def __init__(self, max_open: int, max_open_per_client: int, shared: OpenCounts | None = None) -> None:
        self.max_open = max_open
        self.max_open_per_client = max_open_per_client
        self.open = 0
        """Of this process."""
        self._by_client: Counter[str] = Counter()
        self._shared = shared

    def __repr__(self) -> str:
        return f"<Admission open={self.open} clients={len(self._by_client)}>"

    def refusal(self, client: str) -> Refusal | None:
        """Says why a further request of `client` may not be opened now, None when it may."""
        open_in_all, clients = self.open, self._by_client[client]
        if self._shared is not None:
            open_in_all += self._shared.elsewhere()
            clients += self._shared.elsewhere_of(client)
        if open_in_all >= self.max_open:
            return Refusal(503, "overload", f"{open_in_all} streams are open, the limit is {self.max_open}; come back later")
        if clients >= self.max_open_per_client:
            return Refusal(
                429, "client-streams", f"{client} has {clients} streams open, the limit is {self.max_open_per_client}; close one first"
            )
        return None

    def enter(self, client: str) -> None:
        """Counts a request in."""
        self._count(client, 1)

    def leave(self, client: str) -> None:
        """Counts it out."""
        self._count(client, -1)

    def _count(self, client: str, step: int) -> None:
        self.open += step
        self._by_client[client] += step
        if not self._by_client[client]:
            del self._by_client[client]  # or addresses that came once would be kept for ever
        if self._shared is not None:
            self._shared.add(client, step)
