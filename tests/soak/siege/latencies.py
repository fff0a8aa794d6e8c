"""How long things took for ordinary clients, by kind of client."""

import math
from array import array
from collections import defaultdict


class Latencies:
    """Durations in seconds of each kind of thing that ordinary clients wait for."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))

    def __repr__(self) -> str:
        return f"<Latencies {', '.join(f'{kind}={len(taken)}' for kind, taken in self._seconds.items())}>"

    def add(self, kind: str, seconds: float) -> None:
        self._seconds[kind].append(seconds)

    @property
    def kinds(self) -> list[str]:
        return sorted(self._seconds)

    def count(self, kind: str) -> int:
        return len(self._seconds[kind])

    def percentiles(self, kind: str) -> tuple[float, float, float]:
        """Return p50, p99 (nearest rank) and the maximum in milliseconds. Raises IndexError if nothing of `kind` was measured."""
        taken = sorted(self._seconds[kind])
        return tuple(1000 * taken[math.ceil(len(taken) * part) - 1] for part in (0.5, 0.99, 1.0))  # type: ignore[return-value]


def table(quiet: Latencies, attacked: Latencies) -> list[str]:
    """Return the lines of a table of both phases."""
    lines = [
        "| ordinary client waits for | quiet: n | p50 ms | p99 ms | max ms | attacked: n | p50 ms | p99 ms | max ms | p99 × |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in quiet.kinds:
        before, after = quiet.percentiles(kind), attacked.percentiles(kind)
        figures = " | ".join(
            f"{count:,} | {' | '.join(f'{each:.1f}' for each in of)}"
            for count, of in ((quiet.count(kind), before), (attacked.count(kind), after))
        )
        lines.append(f"| {kind} | {figures} | {after[1] / before[1]:.2f} |")
    return lines
