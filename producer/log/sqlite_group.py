"""Group commit: the appends of many publishers in one transaction, each of them all or nothing."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .event_log import Appended, IdempotencyKey, KeyReused, LogError, Stored
from .sqlite_store import AHEAD, Committed, Row, Store


@dataclass(slots=True)
class Entry:
    """One append; `outcome` is set when its group is committed."""

    topic: str
    blocks: Sequence[bytes]
    key: IdempotencyKey | None
    outcome: Appended | LogError | None = None


class Group:
    """Appends that become one transaction; until then the store stays unchanged."""

    def __init__(self, store: Store, entries: Sequence[Entry], *, key_seconds: float) -> None:
        self._store = store
        self._entries = entries
        self._prefix = f"id: {store.epoch}-".encode()
        self._time_ms = max(store.time_ms, int(time.time() * 1000))
        self._oldest_key_ms = self._time_ms - int(key_seconds * 1000)
        self._next = store.next
        self._next_id = store.next_id
        self._events: list[Stored] = []
        self._event_values: list[object] = []
        self._rows: dict[str, Row] = {}
        self._known: dict[tuple[int, str], tuple[bytes, int, int]] = {}
        self._key_values: list[object] = []

    def commit(self) -> Committed:
        """Commit all entries. Raises LogError when nothing was appended; a reused key is the outcome of its own entry only."""
        store = self._store
        size = sum(len(block) for entry in self._entries for block in entry.blocks)
        store.check_room(size)
        # The reservation is durable beforehand, because a subscriber may see an offset that a power failure takes back.
        reserve = not store.always and store.next - 1 + sum(len(entry.blocks) for entry in self._entries) > store.reserved
        with store.transaction(durable=store.always or reserve):
            self._find_keys()
            for entry in self._entries:
                self._add(entry)
            self._write()
            if reserve:
                store.connection.execute("UPDATE state SET reserved = ?", (self._next - 1 + AHEAD,))
        if reserve:
            store.reserved = self._next - 1 + AHEAD
        store.next, store.time_ms, store.next_id = self._next, self._time_ms, self._next_id
        store.count += len(self._events)
        store.bytes += sum(len(event.block) for event in self._events)
        store.rows.update(self._rows)
        return Committed(store.next - 1, self._events, {**self._rows})

    def _find_keys(self) -> None:
        asked = []
        for entry in self._entries:
            row = self._store.rows.get(entry.topic)
            if entry.key is not None and row is not None:
                asked.append((row.id, entry.key.name))
        if asked:
            found = self._store.connection.execute(
                "SELECT topic, name, fingerprint, first, last FROM json_each(?) AS asked CROSS JOIN keys"
                " ON topic = json_extract(asked.value, '$[0]') AND name = json_extract(asked.value, '$[1]') AND time_ms > ?",
                (json.dumps(asked), self._oldest_key_ms),
            )
            self._known = {(topic, name): (fingerprint, first, last) for topic, name, fingerprint, first, last in found}

    def _add(self, entry: Entry) -> None:
        row = self._rows.get(entry.topic) or self._store.rows.get(entry.topic)
        if row is None:
            row = Row(self._next_id, entry.topic)
            self._store.names[row.id] = row.name
            self._next_id += 1
        if entry.key is not None and (known := self._known.get((row.id, entry.key.name))):
            entry.outcome = _repeat(entry, entry.key, *known)
            return
        first, size = self._next, 0
        for offset, block in enumerate(entry.blocks, first):
            whole = b"%b%d\n%b" % (self._prefix, offset, block)
            size += len(whole)
            self._events.append(Stored(offset, entry.topic, whole))
            self._event_values += (offset, row.id, self._time_ms, whole)
        self._next += len(entry.blocks)
        last = self._next - 1
        self._rows[entry.topic] = replace(row, count=row.count + len(entry.blocks), bytes=row.bytes + size, last=last)
        entry.outcome = Appended(first, last)
        if entry.key is not None:
            self._known[row.id, entry.key.name] = (entry.key.fingerprint, first, last)
            self._key_values += (row.id, entry.key.name, entry.key.fingerprint, first, last, self._time_ms)

    def _write(self) -> None:
        insert = self._store.file.insert
        insert("INSERT INTO events", 4, self._event_values)
        write_rows(self._store, self._rows.values())
        # An expired key is replaced; the new row gets a new number, so that the numbers stay in the order of time.
        insert("INSERT OR REPLACE INTO keys (topic, name, fingerprint, first, last, time_ms)", 6, self._key_values)


def write_rows(store: Store, rows: Iterable[Row]) -> None:
    """Write the rows of topics."""
    values: list[object] = []
    for row in rows:
        values += (row.id, row.name, row.count, row.bytes, row.last, row.gone_through)
    update = " ON CONFLICT (id) DO UPDATE SET " + ", ".join(
        f"{name} = excluded.{name}" for name in ("count", "bytes", "last", "gone_through")
    )
    store.file.insert("INSERT INTO topics", 6, values, update)


def _repeat(entry: Entry, key: IdempotencyKey, fingerprint: bytes, first: int, last: int) -> Appended | KeyReused:
    if fingerprint == key.fingerprint:
        return Appended(first, last, repeated=True)
    return KeyReused(f"idempotency key {key.name!r} was used on topic {entry.topic!r} with other content; use a new one")
