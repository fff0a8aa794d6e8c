"""One line of the log."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

GAP_FACTS = ("asked", "first_retained", "after", "before", "missed", "reason")
"""What a gap is described by, as far as it has it: the first two are those of the producer's topics, the next three our own."""


class RecordError(ValueError):
    """A line of the log is not a record; the message says why."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a line stands: the `number`-th line, from 1 and without holes, of the log that was born as `epoch`."""

    epoch: str
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises RecordError."""
        epoch, dash, number = text.rpartition("-")
        if not (dash and epoch and number.isascii() and number.isdigit() and len(number) <= 18):
            raise RecordError(f"position {text[:80]!r} is not <epoch>-<number>")
        return cls(epoch, int(number))


@dataclass(frozen=True, slots=True)
class Record:
    """An event as it was logged, or, when `gap` is not None, the place where events are missing."""

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
    """For a record without an ID of its own: the last event ID after it, so that the newest line alone tells where to go on."""
    repeat: bool = False
    """The source sent the same event again on one connection: its own repetition, and logged as such."""

    @property
    def checkpoint(self) -> str | None:
        """What to send as `Last-Event-ID` after this record; empty: nothing; None: the record does not tell."""
        return self.last_event_id if self.id is None else self.id

    def key(self) -> int:
        """Equal for records of one and the same event: ID, type and content agree. Differs from process to process.

        The content counts, because a source that counts from 1 again after a restart sends other events under IDs that are known.
        """
        content = self.data if self.gap is None else json.dumps(self.gap, sort_keys=True)
        return hash((self.id, self.type, content))

    def encode(self) -> bytes:
        """Gives the line, with its LF."""
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
    """Gives the record of a line. Raises RecordError."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RecordError("not a JSON object")
    gap, data = fields.get("gap"), fields.get("data")
    if not (isinstance(gap, dict) if data is None else isinstance(data, str) and gap is None):
        raise RecordError("neither a text `data` nor an object `gap`, or both")
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
        raise RecordError(f"`{name}` is missing or not a text")
    return value


def _text_or_none(fields: dict[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _text(fields, name)


Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def write_time(time: datetime) -> str:
    """Gives `time`, which must be UTC, as RFC 3339."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
