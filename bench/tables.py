"""Write the results as Markdown."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .measure import Measurement, Workload
from .topics import TopicMeasurement


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines)


def workload_table(workload: Workload, results: Mapping[str, Sequence[Measurement]]) -> str:
    """Return the medians of each server's measurements, relative to those of nginx or, without nginx, of the first server."""
    unit = "request" if workload.count else "event"
    reference = "nginx" if results.get("nginx") else next((name for name, runs in results.items() if runs), "")
    medians = {name: statistics.median(run.cpu_us_per_unit for run in runs) for name, runs in results.items() if runs}
    head = [
        "server",
        f"CPU µs/{unit}",
        f"× {reference}" if reference else "×",
        "user share",
        "KB/stream",
        "p50 ms",
        "p99 ms",
        f"{unit}s/s",
        "defects",
    ]
    rows = []
    for name, runs in results.items():
        if not runs:
            rows.append([name, *["–"] * (len(head) - 2), "not measured"])
            continue
        rows.append(
            [
                name,
                number(medians[name]),
                number(medians[name] / medians[reference]),
                f"{statistics.median(run.user_share for run in runs):.0%}",
                number(statistics.median(run.kb_per_stream for run in runs)),
                _median_of_known(run.p50_ms for run in runs),
                _median_of_known(run.p99_ms for run in runs),
                f"{statistics.median(run.units_per_second for run in runs):.0f}",
                _defects(runs),
            ]
        )
    return f"### {workload.title}\n\n{table(head, rows)}"


def topic_table(results: Sequence[Sequence[TopicMeasurement]]) -> str:
    """Return the medians of several measurements of each operation."""
    head = ["the producer's topics, 100 bytes of data", "events/s", "CPU µs/event", "p50 ms", "p99 ms"]
    rows = [
        [
            runs[0].title,
            f"{statistics.median(run.events_per_second for run in runs):,.0f}",
            number(statistics.median(run.cpu_us_per_event for run in runs)),
            _median_of_known(run.p50_ms for run in runs),
            _median_of_known(run.p99_ms for run in runs),
        ]
        for runs in results
    ]
    return table(head, rows)


def _defects(runs: Sequence[Measurement]) -> str:
    found: Counter[str] = sum((run.defects for run in runs), Counter())
    return ", ".join(f"{number} {defect}" for defect, number in sorted(found.items())) or "none"


def _median_of_known(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return number(statistics.median(known)) if known else "–"


def number(value: float) -> str:
    """Return three significant digits, a dash for a non-finite value."""
    if not math.isfinite(value):
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
