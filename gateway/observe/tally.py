"""A counter for the hot path: prometheus_client's counter takes a lock and looks for exemplars on each call."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """Count by labels on the event loop's thread. `registry` may be read from any thread."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = labels
        self._counts: dict[tuple[str | int, ...], int] = {}
        registry.register(self)

    def __repr__(self) -> str:
        return f"<Tally {self._name} {sum(self._counts.values())}>"

    def count(self, *labels: str | int, by: int = 1) -> None:
        """Count one more, or `by` more, with these labels."""
        self._counts[labels] = self._counts.get(labels, 0) + by

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric([*map(str, labels)], count)
        yield family
