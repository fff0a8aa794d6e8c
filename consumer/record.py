"""One line of the log."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

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
            raise RecordError(f"position {text[:80]!r} is not <epoch>-<number>")
        return cls(epoch, int(number))


@dataclass(frozen=True, slots=True)
class Record:
    """An event as it was logged or, when `gap` is not None, a place where events are missing."""

    received_at: str
    """RFC 3339, UTC, microseconds."""
    source: str
    id: str | None
    """The event's own ID; None when its block had none."""
    type: str
    position: Position
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


def decode(line: bytes) -> Record:
    """Return the record of a line. Raises RecordError."""
    try:
        fields = json.loads(line.decode())
        if b"\\u" in line:
            json.dumps(fields, ensure_ascii=False).encode()  # fails for a lone surrogate, which the consumer never writes
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RecordError("not a JSON object")
    gap, data = fields.get("gap"), fields.get("data")
    if not (isinstance(gap, dict) if data is None else isinstance(data, str) and gap is None):
        raise RecordError("must have either a string `data` or an object `gap`")
    return Record(
        received_at=_text(fields, "received_at"),
        source=_text(fields, "source"),
        id=_text_or_none(fields, "id"),
        type=_text(fields, "type"),
        position=Position.parse(_text(fields, "position")),
        data=data,
        gap=gap,
        last_event_id=_text_or_none(fields, "last_event_id"),
        repeat=fields.get("repeat") is True,
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise RecordError(f"`{name}` is missing or not a string")
    return value


def _text_or_none(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def write_time(time: datetime) -> str:
    """Return `time`, which must be UTC, as RFC 3339."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
