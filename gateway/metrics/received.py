"""What upstreams have sent."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Source(Protocol):
    """What reads event blocks from one upstream."""

    @property
    def blocks_received(self) -> int: ...

    @property
    def bytes_received(self) -> int: ...


@dataclass(slots=True)
class Count:
    """How many blocks and bytes."""

    blocks: int = 0
    bytes: int = 0


class Received:
    """Counts by route what came of event streams, from `open` to `close` of each; open ones are asked only when somebody looks."""

    def __init__(self) -> None:
        self._ended: defaultdict[str, Count] = defaultdict(Count)
        self._open: dict[Source, str] = {}

    def __repr__(self) -> str:
        return f"<Received open={len(self._open)}>"

    def open(self, source: Source, route: str) -> None:
        """Counts a source from now on."""
        self._open[source] = route

    def close(self, source: Source) -> None:
        """Keeps what a source has counted; no effect when it is not open."""
        route = self._open.pop(source, None)
        if route is not None:
            self.add(route, source.blocks_received, source.bytes_received)

    def add(self, route: str, blocks: int, bytes: int) -> None:
        """Counts what came and was not in an open source."""
        count = self._ended[route]
        count.blocks += blocks
        count.bytes += bytes

    def totals(self) -> Mapping[str, Count]:
        """Gives what has come of each route until now, in a copy."""
        totals = defaultdict(Count, {route: Count(count.blocks, count.bytes) for route, count in self._ended.items()})
        for source, route in self._open.items():
            totals[route].blocks += source.blocks_received
            totals[route].bytes += source.bytes_received
        return totals
