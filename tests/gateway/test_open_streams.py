"""Figures that move while streams are open, and what they are sampled from."""

import asyncio

from prometheus_client import CollectorRegistry, Histogram

from gateway.access.exchange import Exchange
from gateway.http.read_buffer import SAMPLE_EVERY
from gateway.http.upstream import attach, open_session
from gateway.observe.metrics import Metrics
from gateway.observe.traffic import Traffic
from gateway.policy.routes import Route
from gateway.streams.relay import Relay
from gateway.streams.wheel import TimerWheel
from service.process_metrics import LoopLag
from tests.gateway.scripted_transport import Audience
from tests.gateway.test_upstream import read
from tests.kit.upstream import EVENT_STREAM_HEAD, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS, settle

DIRECT = Route.model_validate({"path": "/", "upstream": "http://u"})
BLOCK = b"data: 1\n\n"


class Sink:
    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, data: list[bytes]) -> None:
        self.written += b"".join(data)

    def is_closing(self) -> bool:
        return False


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def histogram() -> Histogram:
    return Histogram("seconds", "Seconds.", registry=CollectorRegistry())


def opened(relay: Relay, **facts: bool) -> Exchange:
    return Exchange(DIRECT, "GET", "/", "::1", status=200, relay=relay, event_stream=True, **facts)


async def test_counts_of_open_streams_move_before_they_end_and_never_go_back() -> None:
    metrics, exchanges = Metrics(), []
    metrics.traffic.watch(lambda: exchanges)
    relays = [Relay(Sink(), TimerWheel(1.0)) for _ in range(3)]
    exchanges += [opened(relay) for relay in relays]
    for number, relay in enumerate(relays, 1):
        relay.blocks_out, relay.bytes_out, relay.bytes_in, relay.heartbeats = number, 10 * number, 20 * number, number
    labels = {"route": "/"}

    def figures() -> list[float | None]:
        names = ("stream_blocks_total", "stream_bytes_total", "heartbeats_total", "upstream_blocks_total", "upstream_bytes_total")
        return [sample(metrics, f"gateway_{name}", **labels) for name in names]

    assert figures() == [6, 60, 6, 6, 120]
    assert sample(metrics, "gateway_streams_open", route="/", mode="direct") == 3
    relays[0].end("left")
    metrics.closed(exchanges.pop(0))
    assert figures() == [6, 60, 6, 6, 120]
    relays[1].blocks_out += 1
    assert figures()[0] == 7
    for exchange in exchanges:
        metrics.closed(exchange)
    exchanges.clear()
    assert figures() == [7, 60, 6, 7, 120]
    assert sample(metrics, "gateway_streams_open", route="/", mode="direct") == 0


async def test_paused_streams_are_counted_and_those_of_other_workers_are_not() -> None:
    metrics = Metrics()
    slow, foreign = Relay(Sink(), TimerWheel(1.0)), Relay(Sink(), TimerWheel(1.0))
    slow.pause()
    metrics.traffic.watch(lambda: [opened(slow), opened(foreign, handed_off=True)])
    assert sample(metrics, "gateway_streams_paused", route="/") == 1
    assert sample(metrics, "gateway_streams_open", route="/", mode="direct") == 1


def test_received_totals_are_kept_when_their_source_is_closed() -> None:
    class Source:
        blocks_received, bytes_received = 2, 30

    traffic, source = Traffic(), Source()
    traffic.began_reading(source, "/a")
    assert [(sums.blocks_in, sums.bytes_in) for sums in traffic.totals().values()] == [(2, 30)]
    source.blocks_received = 5
    traffic.ended_reading(source)
    traffic.ended_reading(source)
    source.blocks_received = 9
    assert traffic.totals()["/a"].blocks_in == 5


async def test_one_read_in_64_of_an_upstream_is_timed_if_it_completes_a_block() -> None:
    metrics = Metrics()
    async with (
        ScriptedUpstream(lambda _: [EVENT_STREAM_HEAD, Silence()]) as upstream,
        open_session(keepalive_seconds=1, max_header_bytes=8192, note_latency=metrics.note_latency) as session,
        session.get(upstream.url) as response,
    ):
        sink = Sink()
        relay = Relay(sink, TimerWheel(1.0))
        assert attach(response, relay)
        assert relay.upstream is not None
        for _ in range(3 * SAMPLE_EVERY):
            read(relay.upstream, chunk(BLOCK))
        assert len(metrics.latencies) == 3
        assert all(0 < seconds < GUARD_SECONDS for seconds in metrics.latencies)
        assert sink.written == BLOCK * 3 * SAMPLE_EVERY
        for _ in range(2 * SAMPLE_EVERY):
            read(relay.upstream, b"")
        assert len(metrics.latencies) == 3


async def test_one_turn_in_64_of_a_shared_stream_is_timed_until_the_last_live_subscriber_was_written_to() -> None:
    metrics = Metrics()
    audience = Audience(note_latency=metrics.note_latency)
    audience.join()
    await settle()
    for number in range(3 * SAMPLE_EVERY):
        audience.fan_out.append(b"data: %d\n\n" % number)
        await settle(3)
    assert 2 <= len(metrics.latencies) <= 3
    assert all(0 < seconds < GUARD_SECONDS for seconds in metrics.latencies)


async def test_loop_that_is_kept_busy_is_late_and_the_worst_of_it_stays_for_a_while() -> None:
    lags = histogram()
    lag = LoopLag(lags)
    with lag.watch():
        async with asyncio.timeout(GUARD_SECONDS):
            loop = asyncio.get_running_loop()
            until = loop.time() + 0.35
            while loop.time() < until:
                pass
            while lag.worst_seconds < 0.1:
                await asyncio.sleep(0.01)
            worst = lag.worst_seconds
            while lag.latest_seconds > 0.1:
                await asyncio.sleep(0.01)
    assert 0.2 <= worst < GUARD_SECONDS
    assert lag.worst_seconds >= worst  # more when the machine was busy meanwhile
    await asyncio.sleep(0.15)
    assert lag.latest_seconds < 0.1  # nothing ticks any more
