"""Measure servers in turns and print a table for each workload."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from . import topics
from .fan_out import FanOut, able, fan_out_table, measure_fan_out
from .hubs import HUBS, hub_program
from .measure import MeasurementError, Workload, measure, run_origin
from .servers import SERVERS, program
from .tables import topic_table, workload_table

_WARM_UP_SECONDS = 0.5

T = TypeVar("T")


def compare_proxies(offered: Sequence[Workload], asked: Sequence[str], seconds: float, repeat: int) -> bool:
    """Measure the requested servers that are installed. Return whether each could be measured."""
    names = _installed(asked, SERVERS, program)
    complete = True
    with run_origin() as origin_port:
        for workload in offered:
            turns = 1 if workload.cut else repeat  # the defects count there, not the figures
            measure_one = partial(measure, workload=workload, origin_port=origin_port, warm_up=_WARM_UP_SECONDS, seconds=seconds)
            results = _measure_all(workload.title, names, measure_one, turns)
            complete &= all(results.values())
            print(workload_table(workload, results), end="\n\n", flush=True)
    return complete


def compare_hubs(offered: Sequence[FanOut], asked: Sequence[str], seconds: float, repeat: int) -> bool:
    """Measure the requested hubs likewise."""
    names = _installed(asked, HUBS, hub_program)
    complete = True
    for workload in offered:
        measure_one = partial(measure_fan_out, workload=workload, seconds=seconds)
        results = _measure_all(
            workload.title, [name for name in names if able(name, workload)], measure_one, 1 if workload.once else repeat
        )
        complete &= all(results.values())
        print(fan_out_table(workload, results), end="\n\n", flush=True)
    return complete


def measure_topics(events: int, repeat: int) -> None:
    """Measure the producer's topics."""
    measurements: dict[str, Callable[[], topics.TopicMeasurement]] = {
        "single events": lambda: topics.publish_singly(events // 100),
        "batches": lambda: topics.publish_batches(events // 1000),
        "replay": lambda: topics.replay(events // 1000 * 1000),
    }
    results: dict[str, list[topics.TopicMeasurement]] = {name: [] for name in measurements}
    for turn in range(1, repeat + 1):
        for name, take in measurements.items():
            print(f"topics {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
            results[name].append(take())
    print(topic_table(list(results.values())), end="\n\n", flush=True)


def _installed(asked: Sequence[str], known: Mapping[str, object], find: Callable[[str], str | None]) -> list[str]:
    """Return those of `asked` that can be measured here, and print which are not installed."""
    names = [name for name in asked if name in known]
    installed = [name for name in names if find(name)]
    if missing := [name for name in names if name not in installed]:
        print(f"Not installed: {', '.join(missing)}.", end="\n\n")
    return installed


def _measure_all(title: str, names: Sequence[str], measure_one: Callable[[str], T], repeat: int) -> dict[str, list[T]]:
    """Measure the servers in turns, so that other load on the machine affects all of them alike."""
    results: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(1, repeat + 1):
        for name in names:
            print(f"{title.partition(':')[0]} {turn}/{repeat}: {name}", file=sys.stderr, flush=True)
            try:
                results[name].append(measure_one(name))
            except MeasurementError as error:
                print(f"  {error}", file=sys.stderr, flush=True)
    return results
