"""Check a log line by line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .log import is_owned
from .record import GAP_FACTS, Position, Record, RecordError, decode
from .repeats import RepeatWindow
from .segment import Segment, SegmentUnreadable, list_segments

WINDOW = 500_000
"""The number of newest IDs that are compared; duplicates further apart are not detected. Bounds the memory to about 100 MiB."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault that a clean log does not have."""

    kind: str
    """One of `Audit.KINDS`."""
    place: str
    """Segment and line."""
    detail: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.detail}"


@dataclass(slots=True)
class Audit:
    """The check of one log directory: iterate `check` to its end, then read the counts.

    A duplicate is an event whose ID, type and content all equal an earlier one's, unless the line says `repeat`: then the source
    sent it twice on one connection, which it may. An ID with other content is a reused ID, which is counted but is no problem.
    """

    KINDS = ("gap", "duplicate", "torn line", "damaged line", "misplaced line", "unreadable segment")

    directory: Path
    lines: int = 0
    events: int = 0
    segments: int = 0
    repeats: int = 0
    reused: int = 0
    being_written: bool = False
    """Whether the last line was unfinished because a consumer was writing it."""
    first: Position | None = None
    last: Position | None = None
    problems: dict[str, int] = field(default_factory=dict)
    _keys: RepeatWindow = field(default_factory=lambda: RepeatWindow(WINDOW))
    _ids: RepeatWindow = field(default_factory=lambda: RepeatWindow(WINDOW))

    def check(self) -> Iterator[tuple[Segment, bytes, list[Problem]]]:
        """Yield each line with its segment and its problems, and an empty line for an unreadable segment. Raises OSError."""
        for kind in self.KINDS:
            self.problems[kind] = 0
        segments = list_segments(self.directory)
        for segment in segments:
            self.segments += 1
            number = 0
            try:
                for number, line in enumerate(segment.lines(), 1):
                    self.lines += 1
                    place = f"{segment.path.name}:{number}"
                    newest = segment is segments[-1]
                    problems = [*self._check_line(segment, place, line, first=number == 1, newest=newest)]
                    yield segment, line, self._count(problems)
            except FileNotFoundError:
                if self.last is not None:  # else retention removed it before the check began
                    yield segment, b"", self._count([Problem("unreadable segment", segment.path.name, "it was removed during the check")])
            except SegmentUnreadable as error:
                yield segment, b"", self._count([Problem("unreadable segment", segment.path.name, f"after line {number}: {error}")])

    @property
    def clean(self) -> bool:
        return not any(self.problems.values())

    def _count(self, problems: list[Problem]) -> list[Problem]:
        for problem in problems:
            self.problems[problem.kind] += 1
        return problems

    def _check_line(self, segment: Segment, place: str, line: bytes, *, first: bool, newest: bool) -> Iterator[Problem]:
        if not line.endswith(b"\n"):
            if newest and is_owned(self.directory):
                self.being_written = True
            else:
                yield Problem("torn line", place, f"{len(line)} bytes without a line end; the consumer removes them when it starts")
            return
        try:
            record = decode(line)
        except RecordError as error:
            yield Problem("damaged line", place, str(error))
            return
        yield from self._check_position(place, record.position)
        if first and record.position.number != segment.first:
            yield Problem("misplaced line", place, f"the segment is named for line {segment.first}, its first line is {record.position}")
        if record.gap is not None:
            yield Problem("gap", place, _describe_gap(record))
        else:
            self.events += 1
        if record.id:
            yield from self._check_repeat(place, record)

    def _check_position(self, place: str, position: Position) -> Iterator[Problem]:
        last, self.last = self.last, position
        if last is None:
            self.first = position
        elif position.epoch != last.epoch:
            yield Problem("misplaced line", place, f"{position} follows {last}: lines of another log")
        elif position.number > last.number + 1:
            yield Problem("misplaced line", place, f"{position} follows {last}: {position.number - last.number - 1} lines are missing")
        elif position.number <= last.number:
            yield Problem("misplaced line", place, f"{position} follows {last}: out of order")

    def _check_repeat(self, place: str, record: Record) -> Iterator[Problem]:
        earlier = self._keys.note(record.key(), record.position.number)
        known_id = self._ids.note(hash(record.id), record.position.number)
        if record.repeat:
            self.repeats += 1
        elif earlier is not None:
            yield Problem("duplicate", place, f"ID {record.id!r} is already in line {earlier}")
        elif known_id is not None:
            self.reused += 1


def _describe_gap(record: Record) -> str:
    gap = record.gap or {}
    parts = [f"{name} {gap[name]}" for name in GAP_FACTS if gap.get(name) is not None]
    return ", ".join(parts) or "the source gave no details"
