"""The command that checks a log."""

import sys
from collections.abc import Iterator
from pathlib import Path

from service.progress import Progress

from .audit import Audit
from .log import is_log
from .segment import Segment, list_segments


def verify(directory: Path, *, show_events: bool = False) -> int:
    """Check the log in DIR, even while a consumer writes it, and print each problem and a summary.

    Problems are gaps, duplicates, torn or damaged lines, missing lines, lines out of order, and unreadable segments.
    The exit status is 0 only if the log is clean, 1 if there are problems, 2 if DIR is not a log.
    """
    if not is_log(directory):
        sys.stderr.write(f"{directory}: not a consumer's log\n")
        return 2
    audit = Audit(directory)
    progress = Progress()
    shares = _shares(list_segments(directory))
    try:
        for segment, line, problems in audit.check():
            if problems or show_events:
                progress.clear()
                if show_events:
                    sys.stdout.buffer.write(line)
                    sys.stdout.buffer.flush()  # before the text that goes through another buffer
                sys.stdout.write("".join(f"{problem}\n" for problem in problems))
                sys.stdout.flush()
            if progress.due:
                progress.show(f"{audit.lines} lines, {shares.get(segment.first, 1.0):.0%} of the bytes checked, {_sum(audit)} problems")
    finally:
        progress.clear()
    sys.stdout.write("".join(f"{line}\n" for line in _summary(audit)))
    sys.stdout.flush()
    return 0 if audit.clean else 1


def _shares(segments: list[Segment]) -> dict[int, float]:
    """Return the share of the bytes that lies before each segment."""
    sizes = [segment.path.stat().st_size if segment.path.exists() else 0 for segment in segments]
    total = sum(sizes) or 1
    return {segment.first: sum(sizes[:at]) / total for at, segment in enumerate(segments)}


def _sum(audit: Audit) -> int:
    return sum(audit.problems.values())


def _summary(audit: Audit) -> Iterator[str]:
    yield f"segments: {audit.segments}"
    yield f"events: {audit.events}"
    for kind in Audit.KINDS:
        yield f"{kind}s: {audit.problems[kind]}"
    if audit.first is not None and audit.last is not None:
        yield f"positions: {audit.first} to {audit.last}"
        if audit.first.number > 1:
            yield f"note: the {audit.first.number - 1} lines before them were removed (retention)"
    if audit.repeats:
        yield f"note: {audit.repeats} events were sent twice by the source on one connection, and are logged as repeats"
    if audit.reused:
        yield f"note: {audit.reused} events have the ID of an earlier, different event"
    if audit.being_written:
        yield "note: the last line was being written and was not checked"
    yield "clean" if audit.clean else f"NOT CLEAN: {_sum(audit)} problems"
