"""Combine the metrics of several workers into those of one gateway."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_Key: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]
"""Family, sample and labels."""

_GROWING = ("counter", "histogram", "summary")
_ONE_OF: Mapping[str, Callable[[float, float], float]] = {
    "gateway_build_info": max,
    "gateway_key_set_age_seconds": max,
    "gateway_key_set_keys": min,
    "gateway_loop_lag_worst_seconds": max,
    "process_start_time_seconds": min,
}
"""Gauges that must not be summed, each with the choice of the one worker's value that represents all."""


class Totals(Collector):
    """Sum the workers' latest metrics, and keep the counters of ended workers, so that a worker's end lowers no counter."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, str]] = {}
        self._latest: dict[int, dict[_Key, float]] = {}
        self._gone: dict[_Key, float] = {}

    def take(self, worker: int, text: str) -> None:
        """Keep the newest metrics of a worker, given in Prometheus' text format."""
        figures: dict[_Key, float] = {}
        for family in text_string_to_metric_families(text):
            self._kinds[family.name] = (family.documentation, family.type)
            for sample in family.samples:
                figures[family.name, sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        self._latest[worker] = figures

    def retire(self, worker: int) -> None:
        """Keep the counters of an ended worker and drop its gauges."""
        figures = self._latest.pop(worker, {})
        _add(self._gone, ((key, value) for key, value in figures.items() if self._kinds[key[0]][1] in _GROWING))

    def collect(self) -> Iterator[Metric]:
        """Yield the sums, for a registry."""
        sums = dict(self._gone)
        for figures in self._latest.values():
            _add(sums, figures.items())
        sums.update(self._find_ones())
        families = {name: Metric(name, *kind) for name, kind in self._kinds.items()}
        for (family, sample, labels), value in sums.items():
            families[family].add_sample(sample, dict(labels), value)
        yield from families.values()

    def _find_ones(self) -> dict[_Key, float]:
        ones: dict[_Key, float] = {}
        for figures in self._latest.values():
            for key, value in figures.items():
                if choose := _ONE_OF.get(key[0]):
                    ones[key] = choose(ones.get(key, value), value)
        return ones


def _add(sums: dict[_Key, float], figures: Iterable[tuple[_Key, float]]) -> None:
    for key, value in figures:
        sums[key] = sums.get(key, 0) + value
