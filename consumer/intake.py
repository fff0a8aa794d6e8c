"""Decide what becomes of an event: a line of the log, a gap and a line, or nothing for a repeat."""

import json
from dataclasses import dataclass, replace
from typing import Any

import structlog

from eventstream import Event

from .record import GAP_FACTS, Clock, Position, Record, utc_now, write_time
from .recovery import Recovered
from .repeats import RepeatWindow
from .sequence import IdSequence

_log = structlog.get_logger()


@dataclass(slots=True)
class Tally:
    """Counts since the start."""

    events: int = 0
    """Events that became lines."""
    gaps: int = 0
    missed: int = 0
    """Events known to be missing, as far as gaps have a number."""
    duplicates: int = 0
    """Repeats that were dropped."""
    last_received: float | None = None
    """Unix time of the newest event, repeats included."""


class Intake:
    """Turn the events of one source, over all connections, into records with consecutive positions.

    The order of its records must be the order of the lines in the log. A repeat is an event whose ID, type and content all equal one of
    the newest `window` records from before the current connection; it is dropped, once per connection. If the source itself sends an
    event twice on one connection, the second is logged and marked `repeat`.

    A gap is an event of type `gap` from the source or, unless `gaps_from_ids` is False, a conclusion of `IdSequence`.
    """

    def __init__(self, source: str, recovered: Recovered, *, window: int, gaps_from_ids: bool = True, clock: Clock = utc_now) -> None:
        self.tally = Tally()
        self._source = source
        self._gaps_from_ids = gaps_from_ids
        self._clock = clock
        self._epoch = recovered.epoch
        self._number = recovered.next_number
        self._connection = 0
        self._asked = ""
        self._dropped = 0  # on this connection
        self._resuming = False  # no event with a new ID on this connection yet
        self._window = RepeatWindow(window)
        self._sequence = IdSequence()
        for seen in recovered.recent:
            if seen.gap:
                self._sequence.restart()
            if seen.id:
                self._window.note(seen.key, 0)
                self._sequence.recall(seen.id)

    def __repr__(self) -> str:
        return f"<Intake next={self._epoch}-{self._number} connection={self._connection}>"

    def connected(self, asked: str) -> None:
        """Record a new connection, whose request sent `asked` as `Last-Event-ID` ("" for none), for the events from now on."""
        self._report_dropped()
        self._connection += 1
        self._asked = asked
        self._resuming = True

    def take(self, event: Event) -> list[Record]:
        """Return the records for `event`: none for a repeat, else its own, after a gap when events are missing before it."""
        now = self._clock()
        self.tally.last_received = now.timestamp()
        record = self._record(event, write_time(now))
        records = [record]
        if record.id:
            known = self._window.note(record.key(), self._connection)
            if known is not None and known != self._connection:
                self._dropped += 1
                self.tally.duplicates += 1
                return []
            if known is not None:
                records = [replace(record, repeat=True)]
            if self._resuming:
                records = self._resume(record)
            else:
                self._sequence.feed(record.id)
        if record.gap is None:
            self.tally.events += 1
        else:
            self._count_gap(record.gap)
            self._sequence.restart()
            self._resuming = False
        self._number += len(records)
        return records

    def _resume(self, record: Record) -> list[Record]:
        """Return the records for the first new ID on a connection, with a gap if events are missing since the last one."""
        self._report_dropped()
        self._resuming = False
        id = record.id or ""
        conclude = self._gaps_from_ids and record.gap is None
        missed = self._sequence.missed(id, asked=self._asked) if conclude else 0
        self._sequence.reconnect(id)
        if not missed:
            return [record]
        gap = {"after": self._asked, "before": id, "missed": missed, "reason": "the IDs jumped at a reconnection"}
        self._count_gap(gap)
        said = replace(record, id=None, type="gap", data=None, gap=gap, last_event_id=self._asked)
        return [said, replace(record, position=Position(self._epoch, self._number + 1))]

    def _record(self, event: Event, received_at: str) -> Record:
        gap = _read_gap(event.data) if event.type == "gap" else None
        return Record(
            received_at,
            self._source,
            event.id,
            event.type,
            Position(self._epoch, self._number),
            data=event.data if gap is None else None,
            gap=gap,
            last_event_id=event.last_event_id if event.id is None else None,
        )

    def _count_gap(self, gap: dict[str, Any]) -> None:
        self.tally.gaps += 1
        missed = gap.get("missed")
        if isinstance(missed, int) and missed > 0:
            self.tally.missed += missed
        _log.warning("events are missing", **{name: str(gap[name])[:200] for name in GAP_FACTS if gap.get(name) is not None})

    def _report_dropped(self) -> None:
        if self._dropped:
            _log.info("repeats dropped", count=self._dropped, asked=self._asked)
            self._dropped = 0


def _read_gap(data: str) -> dict[str, Any]:
    """Return the content of a `gap` event: its JSON object, or anything else as `data`; always with a `reason`."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = data
    gap = dict(told) if isinstance(told, dict) else {"data": told}
    gap.setdefault("reason", "the source said so")
    return gap
