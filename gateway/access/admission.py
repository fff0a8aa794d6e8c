"""Limit open requests, the rate of requests of each client, and the bytes sent to it."""

import math
import mmap
import secrets
from collections.abc import Sequence
from weakref import WeakValueDictionary

from ..policy.refusal import Refusal
from .budget import Budget
from .rates import COLUMNS, Rate, columns_of
from .throttle import Allowance

_ROW = 1 + 2 * COLUMNS
_ITEM_BYTES = 4
_PLACES = 2


class OpenCounts:
    """Open requests or streams of each worker, in shared memory: a worker writes its own row and reads all rows.

    There are two sets of rows: `place` 0 counts requests, `place` 1 streams that may outlive their requests.

    A client's count is in two columns, chosen by hashes of its address. Another client may share one of them, but rarely both, so the
    smaller sum is right, or at worst too high. A reader may miss the latest request.
    """

    def __init__(self, file: int, key: bytes, workers: int, own: int, place: int = 0) -> None:
        self._file = file
        self._workers, self._own_number = workers, own
        set_bytes = _aligned(workers * _ROW * _ITEM_BYTES)
        self._end = _PLACES * set_bytes
        self._memory = mmap.mmap(file, workers * _ROW * _ITEM_BYTES, offset=place * set_bytes)
        self._items = memoryview(self._memory).cast("i")
        self._key = key
        self._own = own * _ROW
        self._others = [row * _ROW for row in range(workers) if row != own]

    @staticmethod
    def size(workers: int) -> int:
        """Return the size of the shared file in bytes, two rates included. Unused pages take no memory."""
        return _PLACES * _aligned(workers * _ROW * _ITEM_BYTES) + 2 * Rate.SIZE

    def at(self, place: int) -> "OpenCounts":
        """Return the counts at another place in the same file."""
        return OpenCounts(self._file, self._key, self._workers, self._own_number, place)

    def rate(self, place: int, per_second: int) -> Rate:
        """Return a rate that all workers share. There is room for two, at places 0 and 1."""
        return Rate(per_second, self._key, self._file, self._end + place * Rate.SIZE)

    def add(self, client: str, step: int) -> None:
        """Add `step` to the count of `client` in this worker's row."""
        self._items[self._own] += step
        for column in self._columns(client):
            self._items[self._own + column] += step

    def elsewhere(self) -> int:
        """Return the count of all other workers."""
        return sum(self._items[row] for row in self._others)

    def elsewhere_of(self, client: str) -> int:
        """Return the count of `client` in all other workers."""
        return min(sum(self._items[row + column] for row in self._others) for column in self._columns(client))

    def clear(self, worker: int) -> None:
        """Clear the row of a worker that has exited."""
        start = worker * _ROW * _ITEM_BYTES
        self._memory[start : start + _ROW * _ITEM_BYTES] = bytes(_ROW * _ITEM_BYTES)

    def _columns(self, client: str) -> Sequence[int]:
        one, other = columns_of(client, self._key)
        return 1 + one, 1 + COLUMNS + other


def _aligned(size: int) -> int:
    """Return `size`, rounded up to where another mapping of the same file may begin."""
    return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


class Admission:
    """Limits on open requests, in total and per client, and on each client's requests and bytes per second.

    With `shared`, they hold for all workers together. 0 requests or bytes per second mean no limit.
    """

    def __init__(
        self,
        max_open: int,
        max_open_per_client: int,
        shared: OpenCounts | None = None,
        *,
        requests_per_second: int = 0,
        bytes_per_second: int = 0,
    ) -> None:
        self.max_open = max_open
        self.max_open_per_client = max_open_per_client
        self.open = 0
        """Open requests in this process."""
        self._by_client: dict[str, int] = {}
        self._shared = shared
        self.streams = Budget(
            max_open,
            max_open_per_client,
            unit="streams that outlive their requests",
            client_reason="client-streams",
            elsewhere=shared.at(1) if shared is not None else None,
        )
        """Shared streams and running kept streams, also those without subscribers. They have the same limits as requests."""
        self._requests = self._open_rate(0, requests_per_second)
        self._bytes = self._open_rate(1, bytes_per_second)
        self._allowances: WeakValueDictionary[str, Allowance] = WeakValueDictionary()

    def _open_rate(self, place: int, per_second: int) -> Rate | None:
        if not per_second:
            return None
        return Rate(per_second, secrets.token_bytes(16)) if self._shared is None else self._shared.rate(place, per_second)

    def __repr__(self) -> str:
        return f"<Admission open={self.open} clients={len(self._by_client)}>"

    def refusal(self, client: str) -> Refusal | None:
        """Return why another request of `client` is refused, or None. An admitted request counts toward the client's rate."""
        open_in_all, clients = self.open, self._by_client.get(client, 0)
        if self._shared is not None:
            open_in_all += self._shared.elsewhere()
            clients += self._shared.elsewhere_of(client)
        if open_in_all >= self.max_open:
            return Refusal(503, "overload", f"{open_in_all} streams are open, the limit is {self.max_open}; retry later")
        if clients >= self.max_open_per_client:
            return Refusal(
                429, "client-streams", f"{client} has {clients} streams open, the limit is {self.max_open_per_client}; close one first"
            )
        return self.too_soon(client)

    def too_soon(self, client: str) -> Refusal | None:
        """Return why `client` exceeds its request rate, or None. An admitted request counts toward it."""
        if self._requests is None or self._requests.take(client):
            return None
        detail = f"{client} may make {self._requests.per_second} requests per second; retry in {self.retry_after_seconds(client)} s"
        return Refusal(429, "client-rate", detail)

    def retry_after_seconds(self, client: str) -> int:
        """Return the seconds until `client` may make another request."""
        return math.ceil(self._requests.wait(client)) if self._requests is not None else 0

    def allowance(self, client: str) -> Allowance | None:
        """Return the byte allowance of a client, one for all its streams, or None without a limit."""
        if self._bytes is None:
            return None
        allowance = self._allowances.get(client)
        if allowance is None:
            allowance = self._allowances[client] = Allowance(self._bytes.account(client))
        return allowance

    def enter(self, client: str) -> None:
        """Count a request as open."""
        self._count(client, 1)

    def leave(self, client: str) -> None:
        """Count a request as closed."""
        self._count(client, -1)

    def _count(self, client: str, step: int) -> None:
        self.open += step
        count = self._by_client.get(client, 0) + step
        if count:
            self._by_client[client] = count
        else:
            self._by_client.pop(client, None)  # otherwise every address ever seen stays in memory
        if self._shared is not None:
            self._shared.add(client, step)
