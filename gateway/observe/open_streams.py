"""Metrics of event streams, added up on each scrape, so that they cost nothing per event."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..access.exchange import Exchange
from ..streams.relay import Relay
from ..streams.subscriber import Subscriber
from .received import Received


@dataclass(slots=True)
class _Sent:
    blocks: int = 0
    bytes: int = 0
    heartbeats: int = 0

    def add(self, relay: Relay | Subscriber) -> None:
        self.blocks += relay.blocks_out
        self.bytes += relay.bytes_out
        self.heartbeats += relay.heartbeats


class OpenStreams(Collector):
    """Report the number of open event streams, and the totals received and sent by open and ended ones."""

    def __init__(self, received: Received) -> None:
        self._received = received
        self._ended: defaultdict[str, _Sent] = defaultdict(_Sent)
        self._exchanges: Callable[[], Iterable[Exchange]] = tuple
        self._seen: set[tuple[str, str]] = set()  # routes and modes whose gauge must fall to 0 instead of vanishing

    def __repr__(self) -> str:
        return f"<OpenStreams routes={len(self._ended)}>"

    def watch(self, exchanges: Callable[[], Iterable[Exchange]]) -> None:
        """Read the open exchanges from `exchanges`."""
        self._exchanges = exchanges

    def closed(self, exchange: Exchange) -> None:
        """Keep the totals of a stream that is no longer open."""
        relay = exchange.relay
        if relay is None:
            return
        self._ended[exchange.route.path].add(relay)
        if isinstance(relay, Relay) and not exchange.to_peer:
            self._received.add(exchange.route.path, relay.blocks_out, relay.bytes_in)

    def collect(self) -> Iterator[Metric]:
        sent = defaultdict(_Sent, {route: _Sent(each.blocks, each.bytes, each.heartbeats) for route, each in self._ended.items()})
        received = self._received.totals()
        streams = Counter(dict.fromkeys(self._seen, 0))
        paused = Counter({route: 0 for route, _ in self._seen})
        for exchange in self._exchanges():
            relay = exchange.relay
            if relay is None or not exchange.event_stream or exchange.handed_over:
                continue
            route = exchange.route.path
            sent[route].add(relay)
            streams[route, exchange.mode] += 1
            paused[route] += relay.paused
            if isinstance(relay, Relay) and not exchange.to_peer:
                received[route].blocks += relay.blocks_out
                received[route].bytes += relay.bytes_in
        self._seen.update(streams)
        open_now = GaugeMetricFamily("gateway_streams_open", "Open event streams.", labels=["route", "mode"])
        for labels, count in streams.items():
            open_now.add_metric(labels, count)
        slow = GaugeMetricFamily("gateway_streams_paused", "Open event streams whose client is not reading.", labels=["route"])
        for route, count in paused.items():
            slow.add_metric([route], count)
        yield from (open_now, slow)
        blocks = CounterMetricFamily("gateway_stream_blocks_total", "Event blocks sent.", labels=["route"])
        size = CounterMetricFamily("gateway_stream_bytes_total", "Bytes of event streams sent.", labels=["route"])
        heartbeats = CounterMetricFamily("gateway_heartbeats_total", "Heartbeats sent.", labels=["route"])
        for route, each in sent.items():
            blocks.add_metric([route], each.blocks)
            size.add_metric([route], each.bytes)
            heartbeats.add_metric([route], each.heartbeats)
        yield from (blocks, size, heartbeats)
        blocks_in = CounterMetricFamily("gateway_upstream_blocks_total", "Event blocks received from upstreams.", labels=["route"])
        bytes_in = CounterMetricFamily("gateway_upstream_bytes_total", "Bytes of event streams received from upstreams.", labels=["route"])
        for route, count_in in received.items():
            blocks_in.add_metric([route], count_in.blocks)
            bytes_in.add_metric([route], count_in.bytes)
        yield from (blocks_in, bytes_in)
