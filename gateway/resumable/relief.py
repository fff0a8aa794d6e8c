"""Which kept streams leave memory, or end, when they hold too much of it."""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from ..budget import NOBODY, Budget
from ..by_weight import ByWeight
from .kept_stream import KeptStream
from .store import RUNNING, TOO_LARGE

_Drop = Callable[[KeptStream], None]


@dataclass(slots=True, eq=False)
class _Weighed:
    """The streams of one owner that may go, and what it holds."""

    amount: int
    streams: deque[KeptStream]


def relieve(memory: Budget, streams: Collection[KeptStream], drop: _Drop, *, store_fails: bool) -> None:
    """Bring `memory` below its limits, those of each client first. `drop` lets an ended stream leave memory.

    Ended streams that the store has go first, those last that are followed. If the store fails, other ended ones follow. Then the largest
    that run are ended. Each time the client that holds the most loses one, so none loses a running stream to a client that holds more.
    What the store is about to get goes later.
    """
    for owner, own in _by_owner(streams).items():
        if owner != NOBODY and memory.of(owner) > memory.limit_per_client:
            _lighten(own, partial(memory.of, owner), memory.limit_per_client, memory, drop, store_fails, "the client's streams")
    if memory.amount > memory.limit:
        _lighten(streams, lambda: memory.amount, memory.limit, memory, drop, store_fails, "all streams")


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
    kinds = [[stream for stream in stored if not stream.viewers], [stream for stream in stored if stream.viewers]]
    if store_fails:
        kinds.append([stream for stream in ended if not stream.end_stored and not stream.viewers])
    for kind in kinds:
        weights = {stream.head.owner: memory.of(stream.head.owner) for stream in kind}
        for stream in _heaviest_first(kind, weights):
            if amount() <= limit:
                return
            stream.send_away()
            drop(stream)
    running = sorted((stream for stream in streams if stream.state == RUNNING), key=_cost, reverse=True)
    weights = {owner: sum(map(_cost, own)) for owner, own in _by_owner(running).items()}
    excess = sum(weights.values()) - limit
    for stream in _heaviest_first(running, weights):
        if excess <= 0:
            return
        excess -= _cost(stream)
        stream.stop(TOO_LARGE, f"{whose} together passed {limit} bytes, and this was the largest")


def _heaviest_first(streams: Iterable[KeptStream], weights: Mapping[str, int]) -> Iterator[KeptStream]:
    """Return the streams so that each is the next of the owner that is the heaviest without those before it, nobody's last."""
    owners = _by_owner(streams)
    nobodys = owners.pop(NOBODY, [])
    queue = ByWeight(_Weighed(weights[owner], deque(own)) for owner, own in owners.items())
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
