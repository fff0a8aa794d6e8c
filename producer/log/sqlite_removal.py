"""Remove from the embedded event log, a bounded number of rows at a time."""

import time
from dataclasses import replace

from .retention import Retention
from .sqlite_group import write_rows
from .sqlite_store import Committed, Row, Store

STEP_ROWS = 2000
STEP_BYTES = 2 * 1024 * 1024
STEP_PAGES = 64
MOST_EMPTY_TOPICS = 100_000
"""The number of empty topics that are remembered individually. Of the others the log knows only that events are gone."""
MOST_KEYS = 10_000_000
"""The largest number of idempotency keys, whatever their age; about a gigabyte."""


def drop(store: Store, name: str) -> Committed:
    """Remove a topic's events and keys at once for every reader; `sweep` removes them from the file. Raises LogError."""
    row = store.rows.get(name)
    if row is None:
        return Committed(store.next - 1)
    gone = max(row.last, row.gone_through)
    fresh = Row(store.next_id, name, gone_through=gone)
    with store.transaction(durable=True):
        store.connection.execute("DELETE FROM topics WHERE id = ?", (row.id,))
        store.connection.execute("INSERT INTO dropped VALUES (?)", (row.id,))
        write_rows(store, [fresh])
        store.names[fresh.id] = name
        store.connection.execute("UPDATE state SET gone_through = max(gone_through, ?)", (gone,))
    store.next_id += 1
    store.dropped.append(row.id)
    store.rows[name] = fresh
    store.count -= row.count
    store.bytes -= row.bytes
    store.gone_through = max(store.gone_through, gone)
    return Committed(store.next - 1, rows={name: fresh}, removed=row.count)


def trim(store: Store, retention: Retention) -> Committed:
    """Remove some of the oldest events beyond retention. Raises LogError."""
    while True:
        oldest = _Oldest(store, retention)
        if not oldest.through:
            return Committed(store.next - 1)
        committed = oldest.remove()
        if committed.removed:
            return committed


class _Oldest:
    """The oldest rows that are to be removed, a prefix of the log."""

    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self.through = 0
        """The offset of the last of them, 0 when there is none."""
        self._gone_ms = 0
        self._removed = self._removed_bytes = 0
        self._rows: dict[str, Row] = {}
        many, much = retention.excess(store.count, store.bytes)
        oldest_ms = retention.oldest_ms(int(time.time() * 1000))
        if many or much or oldest_ms:
            for offset, topic, size, time_ms in self._scan():
                row = store.rows.get(store.names.get(topic, ""))
                if row is not None and row.id == topic:  # else the topic was dropped
                    covered = self._removed >= many and self._removed_bytes >= much and time_ms >= oldest_ms
                    if covered or self._removed_bytes >= STEP_BYTES:
                        break
                    self._take(row, offset, size)
                self.through, self._gone_ms = offset, time_ms

    def _scan(self) -> list[tuple[int, int, int, int]]:
        sql = "SELECT offset, topic, length(block), time_ms FROM events ORDER BY offset LIMIT ?"
        return self._store.connection.execute(sql, (STEP_ROWS,)).fetchall()

    def _take(self, row: Row, offset: int, size: int) -> None:
        row = self._rows.get(row.name, row)
        left = row.count - 1
        self._rows[row.name] = replace(row, count=left, bytes=row.bytes - size, last=row.last if left else 0, gone_through=offset)
        self._removed += 1
        self._removed_bytes += size

    def remove(self) -> Committed:
        store = self._store
        with store.transaction(durable=False):  # events that a power failure brings back are trimmed again
            store.connection.execute("DELETE FROM events WHERE offset <= ?", (self.through,))
            write_rows(store, self._rows.values())
            store.connection.execute("UPDATE state SET gone_through = max(gone_through, ?), gone_ms = ?", (self.through, self._gone_ms))
        store.gone_through = max(store.gone_through, self.through)
        store.gone_ms = self._gone_ms
        store.count -= self._removed
        store.bytes -= self._removed_bytes
        store.rows.update(self._rows)
        return Committed(store.next - 1, rows={**self._rows}, removed=self._removed)


def sweep(store: Store, *, key_seconds: float) -> Committed | None:
    """Remove some invisible data: dropped events, expired keys, old empty topics, unused pages. Return None if there is nothing to do.

    Raises LogError.
    """
    if store.dropped:
        _sweep_dropped(store, store.dropped[0])
    elif len(store.rows) > MOST_EMPTY_TOPICS and (committed := _forget_topics(store)):
        return committed
    elif not (_sweep_keys(store, key_seconds) or store.file.give_back(STEP_PAGES)):
        return None
    return Committed(store.next - 1)


def _sweep_dropped(store: Store, id: int) -> None:
    through = size = 0
    oldest = "SELECT offset, length(block) FROM events WHERE topic = ? ORDER BY offset LIMIT ?"
    for offset, length in store.connection.execute(oldest, (id, STEP_ROWS)):
        through, size = offset, size + length
        if size >= STEP_BYTES:
            break
    with store.transaction(durable=False):
        if through:
            store.connection.execute("DELETE FROM events WHERE topic = ? AND offset <= ?", (id, through))
            return
        some = "SELECT number FROM keys WHERE topic = ? LIMIT ?"
        keys = store.connection.execute(f"DELETE FROM keys WHERE number IN ({some})", (id, STEP_ROWS)).rowcount  # noqa: S608  # a constant
        if not keys:
            store.connection.execute("DELETE FROM dropped WHERE id = ?", (id,))
    if not keys:
        store.dropped.remove(id)
        store.retire(id)


def _forget_topics(store: Store) -> Committed | None:
    """Forget the empty topics that have been inactive longest, a tenth more than necessary; those with keys are kept."""
    excess = sum(not row.count for row in store.rows.values()) - MOST_EMPTY_TOPICS
    if excess <= 0:
        return None
    with store.transaction(durable=False):
        found = store.connection.execute(
            "SELECT id, name, gone_through FROM topics WHERE count = 0 AND NOT EXISTS (SELECT 1 FROM keys WHERE keys.topic = topics.id)"
            " ORDER BY gone_through LIMIT ?",
            (excess + MOST_EMPTY_TOPICS // 10,),
        ).fetchall()
        through = max((gone_through for _, _, gone_through in found), default=0)
        store.connection.executemany("DELETE FROM topics WHERE id = ?", ((id,) for id, _, _ in found))
        store.connection.execute("UPDATE state SET forgotten_through = max(forgotten_through, ?)", (through,))
    if not found:
        return None
    store.forgotten_through = max(store.forgotten_through, through)
    for id, name, _ in found:
        del store.rows[name]
        store.retire(id)
    return Committed(store.next - 1, rows=dict.fromkeys(name for _, name, _ in found))


def _sweep_keys(store: Store, key_seconds: float) -> bool:
    oldest_ms = int((time.time() - key_seconds) * 1000)
    first, last = store.connection.execute("SELECT ifnull(min(number), 0), ifnull(max(number), 0) FROM keys").fetchone()
    expired = store.connection.execute("SELECT time_ms < ? FROM keys WHERE number = ?", (oldest_ms, first)).fetchone()
    if not last or not (expired[0] or last - first >= MOST_KEYS):
        return False
    with store.transaction(durable=False):
        some = "SELECT number FROM (SELECT number, time_ms FROM keys ORDER BY number LIMIT ?3) WHERE time_ms < ?1 OR number <= ?2"
        expired = f"DELETE FROM keys WHERE number IN ({some})"  # noqa: S608  # a constant
        store.connection.execute(expired, (oldest_ms, last - MOST_KEYS, STEP_ROWS))
    return True
