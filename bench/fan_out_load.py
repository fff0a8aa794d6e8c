"""Subscribe many times to one stream of the server under test and check every event; print the results and the server's usage as JSON.

With `--behind`, `--subscribers` of them resume that many events behind, while `--live` others listen.
"""

import argparse
import http.client
import json
import resource
import time
from contextlib import closing
from dataclasses import asdict

from .crowd import Crowd
from .process_tree import usage

_SERVED_SECONDS = 60.0
_STORM_SECONDS = 120.0
_LEFT_SECONDS = 15.0
_QUIET_SECONDS = 2.0
_QUIET_SHARE = 0.01
"""The share of a CPU below which a server counts as idle."""


def percentiles(nanoseconds: list[int]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds; an empty dict for no values."""
    ordered = sorted(nanoseconds)
    return {f"p{part}": ordered[len(ordered) * part // 100] / 1e6 for part in (50, 99)} if ordered else {}


def _reading(crowd: Crowd, server_pid: int) -> dict[str, object]:
    return {"at": time.monotonic(), "events": crowd.events, "load_s": time.process_time(), "server": asdict(usage(server_pid))}


def _never() -> bool:
    return False


def _steady(crowd: Crowd, options: argparse.Namespace) -> dict[str, object]:
    """Subscribe all, listen for a while, and disconnect."""
    _begin(options.begin_port)
    begun = time.monotonic()
    subscribers = crowd.open_many(options.subscribers, seconds=_SERVED_SECONDS)
    served = max(subscriber.begun_at for subscriber in subscribers) - begun
    crowd.run(_never, options.warm_up)
    crowd.latencies_ns = []
    before = _reading(crowd, options.server_pid)
    each = [subscriber.events for subscriber in subscribers]
    crowd.run(_never, options.seconds)
    after = _reading(crowd, options.server_pid)
    if after["events"] != before["events"]:
        starved = sum(subscriber.events == events for subscriber, events in zip(subscribers, each, strict=True))
        crowd.defects["starved"] += starved
    latencies = crowd.latencies_ns
    crowd.close()
    return {
        "before": before,
        "after": after,
        "served_s": served,
        "latency_ms": percentiles(latencies),
        "left_pss_kb": _memory_after_leaving(options.server_pid, options.seconds),
    }


def _memory_after_leaving(server_pid: int, seconds: float) -> int:
    """Return the server's memory when it has cleaned up after all subscribers: when it uses almost no CPU, or after some seconds.

    A measurement of less than 3 `seconds` waits for a proportionally shorter time.
    """
    share = min(seconds / 3, 1.0)
    end = time.monotonic() + share * _LEFT_SECONDS
    quiet_seconds = share * _QUIET_SECONDS
    time.sleep(quiet_seconds)
    before = usage(server_pid)
    while time.monotonic() < end:
        time.sleep(quiet_seconds)
        after = usage(server_pid)
        if after.cpu_ns - before.cpu_ns < _QUIET_SHARE * quiet_seconds * 1e9:
            return after.pss_kb
        before = after
    return before.pss_kb


def _storm(crowd: Crowd, options: argparse.Namespace) -> dict[str, object]:
    """Let some listen, then reconnect many that are far behind."""
    [witness] = crowd.open_many(1)
    crowd.witness = witness
    _begin(options.begin_port)
    if not crowd.run(lambda: witness.next >= options.ahead, _SERVED_SECONDS):
        crowd.defects["not published"] += options.ahead - max(witness.next, 0)
    live = crowd.open_many(options.live)
    crowd.time_alone(live)
    crowd.run(_never, options.warm_up)
    calm = crowd.latencies_ns = []
    crowd.run(_never, options.seconds)
    stormy = crowd.latencies_ns = []
    newest = witness.next - 1
    oldest = max(number for number in crowd.ids if number <= newest - options.behind)
    before = _reading(crowd, options.server_pid)
    lagging = crowd.open_many(options.subscribers, crowd.ids[oldest], oldest + 1, seconds=_STORM_SECONDS)
    served = max(subscriber.begun_at for subscriber in lagging) - float(str(before["at"]))
    if not crowd.run(lambda: all(subscriber.next > newest for subscriber in lagging), _STORM_SECONDS):
        crowd.defects["not caught up"] += sum(subscriber.next <= newest for subscriber in lagging)
    after = _reading(crowd, options.server_pid)
    crowd.latencies_ns = None
    crowd.run(lambda: all(subscriber.next >= witness.next for subscriber in crowd), 10)
    crowd.close()
    return {
        "before": before,
        "after": after,
        "served_s": served,
        "calm_ms": percentiles(calm),
        "latency_ms": percentiles(stormy),
        "left_pss_kb": _memory_after_leaving(options.server_pid, options.seconds),
    }


def _begin(port: int) -> None:
    """Start publishing."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/begin")
        connection.getresponse().read()


def _main() -> None:
    parser = argparse.ArgumentParser("python -m bench.fan_out_load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--begin-port", type=int, required=True, help="port of bench.broadcast")
    parser.add_argument("--subscribers", type=int, required=True)
    parser.add_argument("--behind", type=int, default=0, help="events that they are behind")
    parser.add_argument("--ahead", type=int, default=0, help="events that bench.broadcast publishes at full speed; more than --behind")
    parser.add_argument("--live", type=int, default=0)
    parser.add_argument("--warm-up", type=float, required=True, help="seconds")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    crowd = Crowd(options.port, options.path)
    seen = (_storm if options.behind else _steady)(crowd, options)
    print(json.dumps(seen | {"defects": {name: number for name, number in crowd.defects.items() if number}}))


if __name__ == "__main__":
    _main()
