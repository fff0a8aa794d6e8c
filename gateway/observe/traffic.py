"""Traffic of event streams by route, added up on each scrape, so that it costs nothing per event."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..access.exchange import Exchange
from ..modes.observer import Reader
from ..streams.relay import Relay


@dataclass(slots=True)
class Sums:
    """What the event streams of one route have received and sent, open and ended ones."""

    blocks_in: int = 0
    bytes_in: int = 0
    blocks_out: int = 0
    bytes_out: int = 0
    heartbeats: int = 0
    open: Counter[str] = field(default_factory=Counter)
    """Number of open streams, by mode."""
    paused: int = 0
    """Number of open streams whose client is not reading."""

    def add(self, exchange: Exchange) -> None:
        """Add the traffic of one stream."""
        relay = exchange.relay
        assert relay is not None
        self.blocks_out += relay.blocks_out
        self.bytes_out += relay.bytes_out
        self.heartbeats += relay.heartbeats
        if isinstance(relay, Relay) and not exchange.to_peer:  # else a reader counts what is received, or another worker
            self.blocks_in += relay.blocks_out
            self.bytes_in += relay.bytes_in

    def add_reader(self, reader: Reader) -> None:
        """Add what a reader has received."""
        self.blocks_in += reader.blocks_received
        self.bytes_in += reader.bytes_received


class Traffic(Collector):
    """Report the number of open event streams, and the totals received and sent by open and ended ones.

    The upstreams of shared and kept streams have readers of their own, which count from `began_reading` to `ended_reading`.
    """

    def __init__(self) -> None:
        self._ended: defaultdict[str, Sums] = defaultdict(Sums)
        self._readers: dict[Reader, str] = {}
        self._exchanges: Callable[[], Iterable[Exchange]] = tuple
        self._seen: set[tuple[str, str]] = set()  # routes and modes whose gauge must fall to 0 instead of vanishing

    def __repr__(self) -> str:
        return f"<Traffic routes={len(self._ended)} readers={len(self._readers)}>"

    def watch(self, exchanges: Callable[[], Iterable[Exchange]]) -> None:
        """Read the open exchanges from `exchanges`."""
        self._exchanges = exchanges

    def began_reading(self, reader: Reader, route: str) -> None:
        """Count a reader from now on."""
        self._readers[reader] = route

    def ended_reading(self, reader: Reader) -> None:
        """Keep a reader's totals. No effect if it is unknown."""
        if (route := self._readers.pop(reader, None)) is not None:
            self._ended[route].add_reader(reader)

    def closed(self, exchange: Exchange) -> None:
        """Keep the totals of a stream that is no longer open."""
        self._ended[exchange.route.path].add(exchange)

    def totals(self) -> defaultdict[str, Sums]:
        """Return the sums so far, by route."""
        totals = defaultdict(Sums, {route: replace(sums, open=Counter()) for route, sums in self._ended.items()})
        for reader, route in self._readers.items():
            totals[route].add_reader(reader)
        for exchange in self._exchanges():
            if exchange.relay is None or not exchange.event_stream or exchange.handed_off:
                continue
            sums = totals[exchange.route.path]
            sums.add(exchange)
            sums.open[exchange.mode] += 1
            sums.paused += exchange.relay.paused
        return totals

    def collect(self) -> Iterator[Metric]:
        totals = self.totals()
        self._seen.update((route, mode) for route, sums in totals.items() for mode in sums.open)
        open_now = GaugeMetricFamily("gateway_streams_open", "Open event streams.", labels=["route", "mode"])
        for route, mode in self._seen:
            open_now.add_metric([route, mode], totals[route].open[mode])
        slow = GaugeMetricFamily("gateway_streams_paused", "Open event streams whose client is not reading.", labels=["route"])
        for route in {route for route, _ in self._seen}:
            slow.add_metric([route], totals[route].paused)
        yield from (open_now, slow)
        counters = {
            "blocks_out": CounterMetricFamily("gateway_stream_blocks_total", "Event blocks sent.", labels=["route"]),
            "bytes_out": CounterMetricFamily("gateway_stream_bytes_total", "Bytes of event streams sent.", labels=["route"]),
            "heartbeats": CounterMetricFamily("gateway_heartbeats_total", "Heartbeats sent.", labels=["route"]),
            "blocks_in": CounterMetricFamily("gateway_upstream_blocks_total", "Event blocks received from upstreams.", labels=["route"]),
            "bytes_in": CounterMetricFamily(
                "gateway_upstream_bytes_total", "Bytes of event streams received from upstreams.", labels=["route"]
            ),
        }
        for name, family in counters.items():
            for route, sums in totals.items():
                family.add_metric([route], getattr(sums, name))
            yield family
