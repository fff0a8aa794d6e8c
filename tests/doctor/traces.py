"""Build observations for the pure part of the doctor."""

from collections.abc import Iterable, Sequence

from gateway.doctor.findings import Finding
from gateway.doctor.observation import Arrival, Ending, Head, Observation
from gateway.doctor.quoting import Quote

ASKED = 1000.0
"""Time of the request, on an arbitrary clock."""
PLAIN = Quote()
FIELDS = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Transfer-Encoding", "chunked"))


def head(*fields: tuple[str, str], status: int = 200, version: tuple[int, int] = (1, 1), after: float = 0.01, usual: bool = True) -> Head:
    """Return the head of an event stream. Given fields replace the usual ones of the same name."""
    names = {name.lower() for name, _ in fields}
    kept = [field for field in FIELDS if field[0].lower() not in names] if usual else []
    raw = tuple((name.encode(), value.encode()) for name, value in (*kept, *fields) if value)
    return Head(status, "OK" if status == 200 else "", version, raw, ASKED + after)


def seen(
    trace: Iterable[tuple[float, bytes]],
    *,
    ending: Ending = "open",
    until: float | None = None,
    answer: Head | None = None,
    failure: str = "",
) -> Observation:
    """Return an observation from arrivals at seconds since the request. It lasts until `until`, by default a second after the last byte."""
    arrivals = tuple(Arrival(ASKED + seconds, data) for seconds, data in trace)
    last = arrivals[-1].seconds - ASKED if arrivals else 0.0
    size = sum(len(arrival.data) for arrival in arrivals)
    end = ASKED + (last + 1 if until is None else until)
    return Observation(ASKED, answer or head(), arrivals, ending, end, failure, wire_bytes=size)


def every(seconds: float, blocks: Sequence[bytes], begin: float = 0.02) -> list[tuple[float, bytes]]:
    """Return a trace of blocks that arrive one by one."""
    return [(begin + number * seconds, block) for number, block in enumerate(blocks)]


def numbered(count: int, first: int = 1, text: str = "tick") -> list[bytes]:
    """Return events with consecutive IDs."""
    return [b"id: %d\ndata: %s\n\n" % (number, text.encode()) for number in range(first, first + count)]


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Return the findings by check, the most severe of several."""
    order = ("ok", "note", "warning", "problem")
    return {finding.check: finding for finding in sorted(findings, key=lambda finding: order.index(finding.severity))}


def severities(findings: Iterable[Finding]) -> dict[str, str]:
    return {check: finding.severity for check, finding in by_check(findings).items()}
