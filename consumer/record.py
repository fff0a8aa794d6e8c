"""One line of the log."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import PlainValidator, TypeAdapter, ValidationError

GAP_FACTS = ("asked", "first_retained", "after", "before", "missed", "reason")
"""The facts of a gap, as far as it has them: the first two are those of the producer's topics, the next three our own."""


class RecordError(ValueError):
    """A line of the log is not a record; the message says why."""


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a line: the `number`-th line, from 1 and without holes, of the log with this `epoch`."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Parse `<epoch>-<number>`. Raises RecordError."""
        epoch, dash, number = text.rpartition("-")
        if not (dash and epoch and number.isascii() and number.isdigit() and len(number) <= 18):
            raise RecordError(f"must be <epoch>-<number>, got {text[:80]!r}")
        return cls(epoch, int(number))


def _read_position(value: object) -> Position:
    if not isinstance(value, str):
        raise RecordError("must be a string")
    return Position.parse(value)


@dataclass(frozen=True, slots=True)
class Record:
    """An event as it was logged or, when `gap` is not None, a place where events are missing."""

    received_at: str
    """RFC 3339, UTC, microseconds."""
    source: str
    id: str | None
    """The event's own ID; None when its block had none."""
    type: str
    position: Annotated[Position, PlainValidator(_read_position)]
    data: str | None = None
    gap: dict[str, Any] | None = None
    last_event_id: str | None = None
    """The last event ID after a record without an ID of its own, so that the newest line alone shows where to resume."""
    repeat: bool = False
    """Whether the source itself sent the same event again on one connection; such a repeat is logged."""

    @property
    def checkpoint(self) -> str | None:
        """The `Last-Event-ID` to send after this record; empty: none; None: unknown from this record."""
        return self.last_event_id if self.id is None else self.id

    def key(self) -> int:
        """Return a hash that is equal for records of the same event: ID, type and content agree. It differs from process to process.

        The content counts, because a source that restarts its numbering sends other events under known IDs.
        """
        content = self.data if self.gap is None else json.dumps(self.gap, sort_keys=True)
        return hash((self.id, self.type, content))

    def encode(self) -> bytes:
        """Return the line, with its LF."""
        line: dict[str, Any] = {"received_at": self.received_at, "source": self.source, "id": self.id, "type": self.type}
        if self.gap is None:
            line["data"] = self.data
        else:
            line["gap"] = self.gap
        line["position"] = str(self.position)
        if self.last_event_id is not None:
            line["last_event_id"] = self.last_event_id
        if self.repeat:
            line["repeat"] = True
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


_RECORD = TypeAdapter(Record)


def decode(line: bytes) -> Record:
    """Return the record of a line. Raises RecordError."""
    try:
        record = _RECORD.validate_json(line, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in problem["loc"])
        raise RecordError(place + problem["msg"].removeprefix("Value error, ")) from error
    if (record.data is None) == (record.gap is None):
        raise RecordError("must have either `data` or `gap`")
    return record


Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def write_time(time: datetime) -> str:
    """Return `time`, which must be UTC, as RFC 3339."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
