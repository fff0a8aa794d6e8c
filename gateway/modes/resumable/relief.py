"""Free memory of kept streams: choose which ones leave memory, or end."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic

from ...access.budget import Budget
from ...access.heaviest_first import HeaviestFirst
from ...policy.refusal import Refusal
from ...streams.holding import NOBODY
from .kept_stream import KeptStream
from .store import RUNNING, TOO_LARGE
from .storing import is_settled

_Drop = Callable[[KeptStream], None]

_JOIN_SECONDS = 1.0  # a request for a stream subscribes within a few turns of the event loop, or never


@dataclass(slots=True, eq=False)
class _Weighed:
    """The streams of one owner that may go, and the bytes that it holds."""

    amount: int
    streams: deque[KeptStream]


def relieve(memory: Budget, streams: Collection[KeptStream], drop: _Drop, *, store_fails: bool) -> None:
    """Bring `memory` below its limits, that of each client first. `drop` removes an ended stream from memory.

    Ended streams that the store has go first, those with subscribers last. Then come those that it gave up and, if it fails, other ended
    ones. Then the largest running streams are ended. Each time the client that holds the most loses one, so no client loses a running
    stream to one that holds more. Streams that are about to be stored are not dropped yet.
    """
    for owner, own in _by_owner(streams).items():
        if owner != NOBODY and memory.of(owner) > memory.limit_per_client and not _is_single(own):
            _lighten(own, partial(memory.of, owner), memory.limit_per_client, memory, drop, store_fails, "the client's streams")
    if memory.amount > memory.limit and not _is_single(streams):
        _lighten(streams, lambda: memory.amount, memory.limit, memory, drop, store_fails, "all streams")


def make_room(memory: Budget, streams: Iterable[KeptStream], drop: _Drop, owner: str, size: int) -> Refusal | None:
    """Drop ended streams that the store has, to make room for one of `owner`. Return why there is no room, or None.

    One with subscribers is dropped only if its owner holds more than this one would. The only stream in memory, or of its owner, may have
    any size, otherwise it could never be loaded.
    """

    def is_short() -> bool:
        return 0 < memory.amount > memory.limit - size

    def is_own_short() -> bool:
        return owner != NOBODY and 0 < memory.of(owner) > memory.limit_per_client - size

    stored = [stream for stream in streams if stream.end_stored]  # oldest first
    for stream in sorted(stored, key=_is_in_use):
        own = stream.head.owner == owner
        if _is_in_use(stream) and (own or memory.of(stream.head.owner) <= memory.of(owner) + size):
            continue
        if is_short() or (own and is_own_short()):
            stream.disconnect()
            drop(stream)
    if is_own_short():
        detail = f"the client's kept streams hold {memory.of(owner)} bytes of memory, and one of {size} is requested"
        return Refusal(429, "client-share", f"{detail}, the limit is {memory.limit_per_client}; retry when one has ended")
    if is_short():
        detail = f"kept streams hold {memory.amount} bytes of memory, and one of {size} is requested"
        return Refusal(503, "overload", f"{detail}, the limit is {memory.limit}; retry later")
    return None


def _is_single(streams: Collection[KeptStream]) -> bool:
    """Whether there is a single stream, which has ended and has subscribers: `make_room` allows it any size."""
    return len(streams) == 1 and all(stream.end_stored and _is_in_use(stream) for stream in streams)


def _is_in_use(stream: KeptStream) -> bool:
    """Whether a stream has subscribers, or is about to: otherwise it could leave memory between its load and the answer."""
    return stream.viewers > 0 or (stream.awaited and monotonic() - stream.last_viewed < _JOIN_SECONDS)


def _lighten(
    streams: Collection[KeptStream],
    amount: Callable[[], int],
    limit: int,
    memory: Budget,
    drop: _Drop,
    store_fails: bool,
    whose: str,
) -> None:
    ended = [stream for stream in streams if stream.state != RUNNING]
    stored = [stream for stream in ended if stream.end_stored]
    kinds = [[stream for stream in stored if not _is_in_use(stream)], [stream for stream in stored if _is_in_use(stream)]]
    kinds.append([stream for stream in ended if stream.memory_only])
    if store_fails:
        kinds.append([stream for stream in ended if not is_settled(stream) and not stream.viewers])
    for kind in kinds:
        weights = {stream.head.owner: memory.of(stream.head.owner) for stream in kind}
        for stream in _heaviest_first(kind, weights):
            if amount() <= limit:
                return
            stream.disconnect()
            drop(stream)
    running = sorted((stream for stream in streams if stream.state == RUNNING), key=_cost, reverse=True)
    weights = {owner: sum(map(_cost, own)) for owner, own in _by_owner(running).items()}
    excess = sum(weights.values()) - limit
    for stream in _heaviest_first(running, weights):
        if excess <= 0:
            return
        excess -= _cost(stream)
        stream.stop(TOO_LARGE, f"{whose} together exceeded {limit} bytes, and this was the largest")


def _heaviest_first(streams: Iterable[KeptStream], weights: Mapping[str, int]) -> Iterator[KeptStream]:
    """Yield the streams, each time the next one of the owner that is then the heaviest. Those without an owner are last."""
    owners = _by_owner(streams)
    nobodys = owners.pop(NOBODY, [])
    queue = HeaviestFirst(_Weighed(weights[owner], deque(own)) for owner, own in owners.items())
    while (heaviest := queue.pop()) is not None:
        stream = heaviest.streams.popleft()
        heaviest.amount -= _cost(stream)
        if heaviest.streams:
            queue.put_back(heaviest)
        yield stream
    yield from nobodys


def _by_owner(streams: Iterable[KeptStream]) -> dict[str, list[KeptStream]]:
    """Return the streams of each owner in their order."""
    by_owner: defaultdict[str, list[KeptStream]] = defaultdict(list)
    for stream in streams:
        by_owner[stream.head.owner].append(stream)
    return by_owner


def _cost(stream: KeptStream) -> int:
    return stream.fan_out.history.cost
