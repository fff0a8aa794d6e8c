"""The embedded event log: one SQLite file, one writing thread, a few reading threads, and an event loop that never blocks on them."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Self

from service.storage.async_file import AsyncFile, open_with_readers

from .event_log import Appended, Batch, IdempotencyKey, LogError, Stored, Topic, is_whole_block
from .retention import Retention, upkeep
from .sqlite_group import Entry
from .sqlite_reader import Reader
from .sqlite_removal import drop, sweep, trim
from .sqlite_store import Committed, Store
from .sqlite_writer import Outcome, Writer

_READERS = 3


class SqliteEventLog(AsyncFile[Reader]):
    """An EventLog in a directory of its own. `open` and `close` it in the same event loop, or use it with `async with`."""

    def __init__(
        self,
        store: Store,
        readers: Sequence[Reader],
        *,
        sync_interval_ms: int,
        retention: Retention,
        key_retention_seconds: float,
        upkeep_seconds: float,
    ) -> None:
        """Take over an opened store and its readers; use `open` instead."""
        super().__init__(store.path, readers, failed=LogError)
        self.epoch = store.epoch
        self.last = store.next - 1
        self.topics = {row.name: Topic(row.name, row.count, row.bytes, row.last, row.gone_through) for row in store.rows.values()}
        self._retention = retention
        self._key_seconds = key_retention_seconds
        self._announce: list[Callable[[Sequence[Stored]], None]] = []
        self._writer = Writer(store, self._deliver, sync_seconds=sync_interval_ms / 1000, key_seconds=key_retention_seconds)
        self._upkeep = asyncio.create_task(upkeep((self.sweep, self.trim), pause_seconds=upkeep_seconds))

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        sync: Literal["always", "interval"] = "always",
        sync_interval_ms: int = 1000,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        key_retention_seconds: float = 86_400,
        upkeep_seconds: float = 1.0,
    ) -> Self:
        """Open the log of a directory, which is created if missing. Raises LogInUse, LogDamaged, LogError, OSError.

        `sync` says when an append is acknowledged. `always`: when it is on the disk. `interval`: when the kernel has it, which a crash of
        the process cannot undo; a power failure takes back unsynced events, those of at most `sync_interval_ms`.
        """
        store, readers = await open_with_readers(
            partial(Store, directory, always=sync == "always"), lambda store: Reader(store.path, store.names), _READERS
        )
        return cls(
            store,
            readers,
            sync_interval_ms=sync_interval_ms,
            retention=retention,
            key_retention_seconds=key_retention_seconds,
            upkeep_seconds=upkeep_seconds,
        )

    def __repr__(self) -> str:
        return f"<SqliteEventLog {self._path} epoch={self.epoch} last={self.last} topics={len(self.topics)}>"

    def watch(self, announce: Callable[[Sequence[Stored]], None]) -> None:
        """Implement EventLog.watch."""
        self._announce.append(announce)

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        """Implement EventLog.append."""
        self._check_open()
        if not blocks or not all(map(is_whole_block, blocks)):
            raise ValueError("an append takes one or more whole event blocks, with LF line ends and without an id line")
        if topic not in self.topics:
            topic.encode()  # raises for text that UTF-8 cannot encode
        return await self._writer.append(Entry(topic, blocks, key))  # type: ignore[no-any-return]

    async def read(
        self, after: int, upto: int, topics: Collection[str] | None = None, *, max_events: int = 1000, max_bytes: int = 256 * 1024
    ) -> Batch:
        """Implement EventLog.read."""
        return await self._read(lambda reader: reader.read(after, upto, topics, max_events, max_bytes))

    async def get(self, offset: int) -> Stored | None:
        """Implement EventLog.get."""
        return await self._read(lambda reader: reader.get(offset))

    async def first(self, topics: Collection[str] | None = None) -> int:
        """Implement EventLog.first."""
        return await self._read(lambda reader: reader.first(topics))

    async def offset_before(self, time_ms: int) -> int:
        """Implement EventLog.offset_before."""
        last = self.last
        return await self._read(lambda reader: reader.offset_before(time_ms, last))

    async def drop(self, topic: str) -> int:
        """Implement EventLog.drop."""
        return await self._remove(lambda store: drop(store, topic))

    async def trim(self) -> int:
        """Implement EventLog.trim. The log also calls it periodically."""
        return await self._remove(lambda store: trim(store, self._retention))

    async def sweep(self) -> bool:
        """Remove a bounded part of the data that readers no longer see; return whether there was any. The log calls it regularly."""
        self._check_open()
        return await self._writer.run(lambda store: sweep(store, key_seconds=self._key_seconds)) is not None

    async def _close(self) -> None:
        self._upkeep.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._upkeep
        finally:
            await self._close_readers()
            await self._writer.close()  # closing the last connection moves the write-ahead log into the file

    async def _remove(self, call: Callable[[Store], Committed]) -> int:
        self._check_open()
        committed: Committed = await self._writer.run(call)
        return committed.removed

    def _deliver(self, committed: Committed | None, outcomes: Sequence[Outcome]) -> None:
        """Take over the committed state, announce the events, and then resolve the waiters."""
        if committed is not None:
            self._take(committed)
        for waiter, outcome in outcomes:
            if waiter.done():
                continue  # cancelled
            if isinstance(outcome, Exception):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

    def _take(self, committed: Committed) -> None:
        self.last = committed.last
        for name, row in committed.rows.items():
            if row is None:
                del self.topics[name]
                continue
            topic = self.topics.get(name) or self.topics.setdefault(name, Topic(name))
            topic.count, topic.bytes, topic.last, topic.gone_through = row.count, row.bytes, row.last, row.gone_through
        if committed.events:
            for announce in self._announce:
                try:
                    announce(committed.events)
                except Exception as error:  # noqa: BLE001 - publishers must not wait for ever because a watcher failed
                    context = {"message": f"{announce!r} failed to watch the event log", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)
