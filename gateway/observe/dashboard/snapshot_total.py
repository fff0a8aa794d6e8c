"""Combine the samples of one or several processes into the snapshot that the dashboard shows."""

import heapq
import itertools
import time
from collections.abc import Iterable, Mapping
from typing import Any

from .snapshot import MOST_STREAMS

_MOST_ENDED = 30
_MOST_MARKS = 100
_ROUTE_FIGURES = ("streams", "history_bytes", "subscribers", "in", "out", "bytes_out")

Samples = Mapping[int, Mapping[str, Any]]
"""Samples by worker number, which is 0 without workers."""


def total(samples: Samples, marks: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the totals of all processes. `marks` are those that no sample contains."""
    streams = [
        {"key": f"{worker}-{stream['number']}", "worker": worker, **stream}
        for worker, sample in samples.items()
        for stream in sample["streams"]
    ]
    most = heapq.nlargest(MOST_STREAMS, streams, key=lambda stream: (stream["rate"] or 0.0, stream["subscribers"]))
    routes = _routes(samples.values())
    latencies = sorted(latency for sample in samples.values() for latency in sample["latencies"])
    left_out = sum(sample["streams_left_out"] for sample in samples.values())
    return {
        "at": time.time(),
        "requests": sum(sample["requests"] for sample in samples.values()),
        "memory_bytes": sum(sample["memory_bytes"] for sample in samples.values()),
        "cpu": _sum(sample["cpu"] for sample in samples.values()),
        "loop_lag": max((sample["loop_lag"] for sample in samples.values()), default=0.0),
        "loop_lag_worst": max((sample["loop_lag_worst"] for sample in samples.values()), default=0.0),
        "latency_p50": _quantile(latencies, 0.5),
        "latency_p99": _quantile(latencies, 0.99),
        "in": _sum(route["in"] for route in routes),
        "out": _sum(route["out"] for route in routes),
        "bytes_out": _sum(route["bytes_out"] for route in routes),
        "subscribers": sum(route["subscribers"] for route in routes),
        "routes": routes,
        "streams": sorted(most, key=lambda stream: (stream["route"], stream["path"], stream["worker"], stream["number"])),
        "streams_left_out": left_out + len(streams) - len(most),
        "ended": _newest(_MOST_ENDED, *(sample["ended"] for sample in samples.values())),
        "marks": _newest(_MOST_MARKS, marks, *(sample["marks"] for sample in samples.values())),
    }


def _routes(samples: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the sums of routes with the same path, ordered by path."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        for route in sample["routes"]:
            alike.setdefault(route["path"], []).append(route)
    return [
        {**routes[0], **{name: _sum(route[name] for route in routes) for name in _ROUTE_FIGURES}} for _, routes in sorted(alike.items())
    ]


def _newest(most: int, *entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the newest of all entries, oldest first."""
    return sorted(itertools.chain(*entries), key=lambda entry: float(entry["at"]))[-most:]


def _sum(figures: Iterable[float | None]) -> float | None:
    """Return the sum of the known figures, None if there are none."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None


def _quantile(ordered: list[float], part: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None
