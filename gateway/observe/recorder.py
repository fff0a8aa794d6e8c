"""Record in metrics and timeline what the modes report."""

from ..modes.observer import Observer, Reader
from .metrics import Metrics
from .timeline import Timeline


class Recorder(Observer):
    """Count in `metrics`, and keep incidents in `timeline`."""

    def __init__(self, metrics: Metrics, timeline: Timeline) -> None:
        self._metrics = metrics
        self._timeline = timeline

    def requested(self, route: str, method: str) -> None:
        self._metrics.asked(route, method)

    def reconnected(self, route: str) -> None:
        self._metrics.reconnected(route)

    def subscribed(self, route: str, begin: str) -> None:
        self._metrics.subscribed(route, begin)

    def began_reading(self, reader: Reader, route: str) -> None:
        self._metrics.received.open(reader, route)

    def ended_reading(self, reader: Reader) -> None:
        self._metrics.received.close(reader)

    def note_latency(self, seconds: float) -> None:
        self._metrics.latency.note(seconds)

    def note_incident(self, kind: str, route: str, target: str, detail: str) -> None:
        self._timeline.mark(kind, route, target, detail)
