"""Sample the state of one gateway process for the dashboard, as plain values without secrets."""

import asyncio
import heapq
import itertools
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...access.exchange import Exchange
from ...modes.resumable.heads import shown_name
from ...modes.resumable.kept_stream import KeptStream
from ...modes.resumable.kept_streams import KeptStreams
from ...modes.resumable.store import COMPLETE, RUNNING
from ...modes.shared.shared_mode import Shared
from ...modes.shared.stream import SharedStream
from ...policy.resume import hide_name
from ...policy.route_table import RouteTable
from ...policy.routes import Route
from ...streams.fan_out import FanOut
from ...streams.relay import Relay
from ..metrics import Metrics
from ..timeline import shown_id, shown_path, without_secrets
from ..traffic import Sums

MOST_STREAMS = 100
"""Streams shown one by one at most, the busiest first. The others only count for their routes."""

_MOST_ENDED = 10
_FRESH_SECONDS = 5.0
"""Samples further apart than this give no rate."""

Stream = Exchange | SharedStream | KeptStream
"""A stream of any mode. An exchange is a stream if it has its own upstream."""


class Requests(Protocol):
    """What is served: requests, routes and kept streams."""

    draining: bool
    exchanges: set[Exchange]

    @property
    def routes(self) -> RouteTable: ...

    @property
    def kept(self) -> KeptStreams | None: ...


@dataclass(slots=True)
class _Seen:
    number: int
    blocks: int
    rate: float | None = None


class Sampler:
    """Sample on request, and remember the last sample for 5 s, to calculate rates. Costs nothing between samples."""

    def __init__(self, proxy: Requests, shared: Shared, metrics: Metrics) -> None:
        self._proxy = proxy
        self._shared = shared
        self._metrics = metrics
        self._numbers = itertools.count(1)
        self._seen: dict[Stream, _Seen] = {}
        self._sums: dict[str, Sums] = {}
        self._at = 0.0
        self._cpu = 0.0
        self._forgetting: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Sampler streams={len(self._seen)}>"

    def close(self) -> None:
        """Forget the last sample."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        self._seen, self._sums, self._at = {}, {}, 0.0

    def find(self, number: int) -> Stream | None:
        """Return the stream to which the last sample gave this number, None if the stream or the sample is gone."""
        return next((stream for stream, seen in self._seen.items() if seen.number == number), None)

    def sample(self) -> dict[str, Any]:
        """Return a sample of the current state."""
        loop = asyncio.get_running_loop()
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = loop.call_later(_FRESH_SECONDS, self.close)
        now, cpu = loop.time(), time.process_time()
        passed = now - self._at if self._at else 0.0
        streams = self._look_at_streams(passed)
        routes = self._look_at_routes(passed, streams)
        latencies, lag = list(self._metrics.latencies), self._metrics.loop_lag
        self._metrics.latencies.clear()  # later latencies belong to the next sample
        sample = {
            "state": "draining" if self._proxy.draining else "ready",
            "requests": sum(not exchange.handed_off for exchange in self._proxy.exchanges),
            "memory_bytes": _memory_bytes(),
            "cpu": (cpu - self._cpu) / passed if passed else None,
            "loop_lag": lag.latest_seconds,
            "loop_lag_worst": lag.worst_seconds,
            "latencies": latencies,
            "routes": routes,
            "streams": [self._row(stream) for stream in heapq.nlargest(MOST_STREAMS, streams, key=self._activity)],
            "streams_left_out": max(0, len(streams) - MOST_STREAMS),
            "ended": self._metrics.timeline.ended + self._kept_that_ended(),
            "marks": self._metrics.timeline.marks,
        }
        self._at, self._cpu = now, cpu
        return sample

    def _look_at_streams(self, passed: float) -> list[Stream]:
        streams: list[Stream] = [*self._shared.streams]
        if self._proxy.kept is not None:
            streams += (stream for stream in self._proxy.kept.streams if stream.state == RUNNING)
        streams += (exchange for exchange in self._proxy.exchanges if _is_own_stream(exchange))
        before, self._seen = self._seen, {}
        for stream in streams:
            blocks, seen = _blocks_in(stream), before.get(stream)
            if seen is None:
                self._seen[stream] = _Seen(next(self._numbers), blocks)
            else:
                seen.rate = (blocks - seen.blocks) / passed if passed else None
                seen.blocks = blocks
                self._seen[stream] = seen
        return streams

    def _look_at_routes(self, passed: float, streams: Iterable[Stream]) -> list[dict[str, Any]]:
        before, self._sums = self._sums, self._metrics.traffic.totals()
        counts = Counter(stream.route.path for stream in streams)
        history = self._history_bytes()
        rows = []
        for route in self._proxy.routes.routes:
            sums = self._sums.get(route.path, Sums())
            row: dict[str, Any] = _describe(route) | {
                "streams": counts[route.path],
                "history_bytes": history[route.path],
                "subscribers": sums.open.total(),
                "in": None,
                "out": None,
                "bytes_out": None,
            }
            if passed:
                last = before.get(route.path, Sums())
                row["in"] = max(0.0, (sums.blocks_in - last.blocks_in) / passed)
                row["out"] = max(0.0, (sums.blocks_out - last.blocks_out) / passed)
                row["bytes_out"] = max(0.0, (sums.bytes_out - last.bytes_out) / passed)
            rows.append(row)
        return rows

    def _history_bytes(self) -> Counter[str]:
        """Return the bytes of history that each route keeps in memory, also of ended streams."""
        kept = self._proxy.kept
        history: Counter[str] = Counter()
        streams: list[SharedStream | KeptStream] = [*self._shared.streams, *(kept.streams if kept is not None else ())]
        for stream in streams:
            history[stream.route.path] += stream.fan_out.history.cost
        return history

    def _kept_that_ended(self) -> list[dict[str, Any]]:
        """Return the latest kept streams that ended without being complete."""
        kept = self._proxy.kept
        ended = (stream for stream in (kept.streams if kept is not None else ()) if stream.state not in (RUNNING, COMPLETE))
        return [
            {
                "at": stream.ended_at,
                "route": stream.route.path,
                "method": stream.head.method,
                "path": _kept_path(stream),
                "name": shown_name(stream.head),
                "verdict": stream.state,
                "reason": without_secrets(stream.reason),
                "blocks": stream.fan_out.history.end,
                "bytes": stream.size,
                "seconds": stream.ended_at - stream.head.opened_at,
            }
            for stream in heapq.nlargest(_MOST_ENDED, ended, key=lambda stream: stream.ended_at)
        ]

    def _activity(self, stream: Stream) -> tuple[float, int]:
        return self._seen[stream].rate or 0.0, _subscribers(stream)

    def _row(self, stream: Stream) -> dict[str, Any]:
        seen = self._seen[stream]
        fan_out = _fan_out(stream)
        row: dict[str, Any] = {"number": seen.number, "route": stream.route.path, "blocks": seen.blocks, "rate": seen.rate}
        row |= {"subscribers": _subscribers(stream), "slow": 0, "lag": None, "history_blocks": None, "history_bytes": None}
        if fan_out is not None:
            row |= _lag(fan_out) | {"history_blocks": fan_out.history.end - fan_out.history.first, "history_bytes": fan_out.history.cost}
        match stream:
            case SharedStream(source=source):
                state = {"open": "open", "connecting": "reconnecting" if source.connections else "connecting"}.get(source.state, "closed")
                row |= {"mode": "shared", "path": shown_path(stream.target), "state": state, "last_id": shown_id(source.last_event_id)}
                row |= {"reason": without_secrets(source.last_error or ""), "connections": source.connections}
            case KeptStream(head=head):
                row |= {
                    "mode": "resumable",
                    "path": _kept_path(stream),
                    "name": shown_name(head),
                    "state": stream.state,
                    "reason": without_secrets(stream.reason),
                }
                row["last_id"] = f"{head.id[:8]}…-{fan_out.history.end}" if fan_out is not None else ""
            case Exchange(relay=Relay() as relay):
                row |= {"mode": "direct", "path": shown_path(stream.shown_path), "state": "held back" if relay.paused else "open"}
                row |= {"slow": int(relay.paused), "last_id": None}
        return row


def _is_own_stream(exchange: Exchange) -> bool:
    return exchange.event_stream and not exchange.to_peer and isinstance(exchange.relay, Relay) and not exchange.relay.verdict


def _blocks_in(stream: Stream) -> int:
    """Return the number of blocks received, for a kept stream including those from before a restart of the gateway."""
    if isinstance(stream, Exchange):
        return stream.relay.blocks_out if stream.relay is not None else 0
    return stream.fan_out.history.end


def _fan_out(stream: Stream) -> FanOut | None:
    return None if isinstance(stream, Exchange) else stream.fan_out


def _subscribers(stream: Stream) -> int:
    """Return the number of subscribers, including those of catch-ups."""
    if isinstance(stream, Exchange):
        return 1
    catch_ups = stream.catch_ups if isinstance(stream, SharedStream) else ()
    return len(stream.fan_out.subscribers) + sum(len(each.fan_out.subscribers) for each in catch_ups)


def _lag(fan_out: FanOut) -> dict[str, int]:
    """Return the number of subscribers that are behind, and the greatest lag in blocks."""
    alone = [subscriber.cursor for subscriber in fan_out.subscribers if subscriber.cohort is None]
    end = fan_out.history.end
    return {"slow": sum(cursor < end for cursor in alone), "lag": end - min(alone, default=end)}


def _kept_path(stream: KeptStream) -> str:
    return shown_path(hide_name(stream.head.target.partition("?")[0], stream.route.templates))


def _describe(route: Route) -> dict[str, Any]:
    return {"path": route.path, "mode": route.mode, "upstream": route.upstream}


def _memory_bytes() -> int:
    """Return the resident memory of the process, or its peak on systems other than Linux."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
