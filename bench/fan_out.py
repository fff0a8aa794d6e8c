"""Fan-out: one stream, many subscribers. Measure one hub at a time, and write the results as Markdown."""

import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .hubs import HUBS, Hub, hub_program
from .measure import MeasurementError, Running, free_ports, run_load, run_process, wait_for_answer
from .process_tree import measuring_cpus, usage
from .servers import Launch, Place, environment
from .tables import number, table

_WARM_UP_SECONDS = 1.0
_LOAD_SECONDS = 400.0
"""The most seconds that a load may take beyond the time that it measures."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """The load on a hub."""

    title: str
    subscribers: int
    rate: float
    """Events per second; 0: none."""
    size: int = 200
    """Approximate bytes of an event."""
    seconds: float = 0.0
    """Length of the measurement; 0: as on the command line."""
    behind: int = 0
    """If set, the subscribers resume this number of events behind, while `live` others listen."""
    live: int = 0
    once: bool = False
    """Whether one measurement is enough."""


FAN_OUTS = {
    "many": FanOut("many: 10,000 subscribers × 2 events/s", 10_000, 2),
    "busy": FanOut("busy: 1,000 subscribers × 60 events/s", 1_000, 60),
    "overload": FanOut("overload: 1,000 subscribers × 150 events/s", 1_000, 150),
    "idle": FanOut("idle: 10,000 subscribers, no events", 10_000, 0),
    "minute": FanOut("minute: 10,000 subscribers × 2 events/s for 60 s", 10_000, 2, seconds=60, once=True),
    "storm": FanOut(
        "storm: 10,000 subscribers resume 5,000 events behind, 1,000 others listen to 2 events/s", 10_000, 2, behind=5_000, live=1_000
    ),
}


@dataclass(frozen=True, slots=True)
class Fanned:
    """The results of one hub in one measurement."""

    deliveries_per_second: float
    cpu_us_per_delivery: float
    user_share: float
    kb_per_subscriber: float
    """Memory per subscriber above that of the idle server."""
    left_ratio: float
    """Memory after they have left, relative to that of the idle server."""
    served_seconds: float
    """From the first connection attempt until all had the head of their response."""
    seconds: float
    """Length of the measurement; in a storm, until all have caught up."""
    load_share: float
    """CPU of the load, 0 to 1: near 1 the load was the limit."""
    p50_ms: float | None
    p99_ms: float | None
    calm_p99_ms: float | None
    """p99 of the live subscribers, before the storm."""
    defects: Counter[str]


def fan_outs(subscribers: int | None) -> dict[str, FanOut]:
    """Return the workloads, with `subscribers` in place of their own number."""
    if subscribers is None:
        return FAN_OUTS
    return {
        name: replace(
            each, title=f"{name}, with {subscribers} subscribers instead", subscribers=subscribers, live=each.live and subscribers
        )
        for name, each in FAN_OUTS.items()
    }


def able(name: str, workload: FanOut) -> bool:
    """Whether hub `name` supports the workload."""
    return HUBS[name].resumes or not workload.behind


def measure_fan_out(name: str, workload: FanOut, seconds: float) -> Fanned:
    """Start hub `name` and measure it. Raises MeasurementError."""
    path = hub_program(name)
    if path is None:
        raise MeasurementError(f"{name} is not installed")
    hub = HUBS[name]
    ahead = workload.behind + 500 if workload.behind else 0
    events = [f"--rate={workload.rate:g}", f"--size={workload.size}", f"--ahead={ahead}"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        port, upstream_port, spare_port = free_ports(3)
        place = Place(port, upstream_port, spare_port, Path(folder))
        with _run_hub(name, path, hub, place, events) as running:
            pid = running.process.pid
            idle_pss_kb = usage(pid).pss_kb
            options: dict[str, object] = {
                "port": port,
                "path": hub.path,
                "begin-port": port if name == "floor" else upstream_port,
                "subscribers": workload.subscribers,
                "behind": workload.behind,
                "ahead": ahead,
                "live": workload.live,
                "warm-up": _WARM_UP_SECONDS,
                "seconds": workload.seconds or seconds,
                "server-pid": pid,
            }
            seen = run_load("bench.fan_out_load", options, _LOAD_SECONDS + (workload.seconds or seconds))
    return _evaluate(workload, idle_pss_kb, seen)


@contextmanager
def _run_hub(name: str, path: str, hub: Hub, place: Place, events: list[str]) -> Iterator[Running]:
    """Run a hub and its publisher, on CPUs of their own."""
    cpus = measuring_cpus() or (None, None)
    launch: Launch = hub.launch(place, events)
    broadcast = [sys.executable, "-m", "bench.broadcast", "--port", str(place.upstream_port), *events]
    if hub.post_path:
        with run_process([path, *launch.arguments], environment() | launch.environ, cpus[0]) as running:
            wait_for_answer(name, place.port, running, hub.path, whole=False)
            with run_process([*broadcast, "--post-to", f"{place.port}{hub.post_path}"], environment(), cpus[1]) as publisher:
                wait_for_answer("broadcast", place.upstream_port, publisher, whole=False)
                yield running
        return
    with run_process(broadcast, environment(), cpus[1]) as upstream:
        wait_for_answer("broadcast", place.upstream_port, upstream, whole=False)
        with run_process([path, *launch.arguments], environment() | launch.environ, cpus[0]) as running:
            wait_for_answer(name, place.port, running, hub.path, whole=False)
            yield running


def _evaluate(workload: FanOut, idle_pss_kb: int, seen: dict[str, Any]) -> Fanned:
    before, after = seen["before"], seen["after"]
    seconds = after["at"] - before["at"]
    deliveries = after["events"] - before["events"]
    spent = {name: after["server"][name] - before["server"][name] for name in ("cpu_ns", "user_ticks", "all_ticks")}
    return Fanned(
        deliveries_per_second=deliveries / seconds,
        cpu_us_per_delivery=spent["cpu_ns"] / 1000 / deliveries if deliveries else math.inf,
        user_share=spent["user_ticks"] / max(spent["all_ticks"], 1),
        kb_per_subscriber=(after["server"]["pss_kb"] - idle_pss_kb) / (workload.subscribers + workload.live),
        left_ratio=seen["left_pss_kb"] / idle_pss_kb,
        served_seconds=seen["served_s"],
        seconds=seconds,
        load_share=(after["load_s"] - before["load_s"]) / seconds,
        p50_ms=seen["latency_ms"].get("p50"),
        p99_ms=seen["latency_ms"].get("p99"),
        calm_p99_ms=seen.get("calm_ms", {}).get("p99"),
        defects=Counter(seen["defects"]),
    )


def fan_out_table(workload: FanOut, results: Mapping[str, Sequence[Fanned]]) -> str:
    """Return the medians of each hub's measurements, relative to those of the floor or, without it, of the first hub."""
    reference = "floor" if results.get("floor") else next((name for name, runs in results.items() if runs), "")
    medians = {name: statistics.median(run.cpu_us_per_delivery for run in runs) for name, runs in results.items() if runs}
    head = ["hub", "CPU µs/delivery", f"× {reference}", "user share", "KB/subscriber", "memory after ×", "all served s"]
    head += ["caught up s", "p99 ms before"] if workload.behind else []
    head += ["p50 ms", "p99 ms", "deliveries/s", "load's CPU", "defects"]
    rows = []
    for name, runs in results.items():
        if not runs:
            rows.append([name, *["–"] * (len(head) - 2), "not measured"])
            continue
        row = [name, number(medians[name]), number(medians[name] / medians[reference])]
        row.append(f"{statistics.median(run.user_share for run in runs):.0%}")
        row += [_median(runs, field) for field in ("kb_per_subscriber", "left_ratio", "served_seconds")]
        row += [_median(runs, field) for field in ("seconds", "calm_p99_ms")] if workload.behind else []
        row += [_median(runs, field) for field in ("p50_ms", "p99_ms")]
        row.append(f"{statistics.median(run.deliveries_per_second for run in runs):.0f}")
        row.append(f"{statistics.median(run.load_share for run in runs):.0%}")
        row.append(_defects(run.defects for run in runs))
        rows.append(row)
    return f"### {workload.title}\n\n{table(head, rows)}"


def _median(runs: Sequence[Fanned], field: str) -> str:
    known = [value for run in runs if (value := getattr(run, field)) is not None]
    return number(statistics.median(known)) if known else "–"


def _defects(runs: Iterable[Counter[str]]) -> str:
    found: Counter[str] = sum(runs, Counter())
    return ", ".join(f"{count} {defect}" for defect, count in sorted(found.items())) or "none"
