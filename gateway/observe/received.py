"""Count the blocks and bytes received from upstreams."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ..modes.observer import Reader


@dataclass(slots=True)
class Count:
    """A number of blocks and bytes."""

    blocks: int = 0
    bytes: int = 0


class Received:
    """Count received blocks and bytes by route, for each source from `open` to `close`. Open sources are read only on request."""

    def __init__(self) -> None:
        self._ended: defaultdict[str, Count] = defaultdict(Count)
        self._open: dict[Reader, str] = {}

    def __repr__(self) -> str:
        return f"<Received open={len(self._open)}>"

    def open(self, source: Reader, route: str) -> None:
        """Count a source from now on."""
        self._open[source] = route

    def close(self, source: Reader) -> None:
        """Keep a source's totals. No effect if the source is not open."""
        route = self._open.pop(source, None)
        if route is not None:
            self.add(route, source.blocks_received, source.bytes_received)

    def add(self, route: str, blocks: int, bytes: int) -> None:
        """Add blocks and bytes that belong to no open source."""
        count = self._ended[route]
        count.blocks += blocks
        count.bytes += bytes

    def totals(self) -> Mapping[str, Count]:
        """Return a copy of the totals so far, by route."""
        totals = defaultdict(Count, {route: Count(count.blocks, count.bytes) for route, count in self._ended.items()})
        for source, route in self._open.items():
            totals[route].blocks += source.blocks_received
            totals[route].bytes += source.bytes_received
        return totals
