"""The thread that writes the embedded event log: waiting appends become one transaction with one sync."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from .event_log import LogError, LogFull
from .sqlite_group import Entry, Group
from .sqlite_store import Committed, Store

_GROUP_EVENTS = 4000
_GROUP_BYTES = 8 * 1024 * 1024

Outcome = tuple[asyncio.Future[Any], object]
"""A waiter and its result, or the exception to raise there."""
Deliver = Callable[[Committed | None, Sequence[Outcome]], object]


@dataclass(frozen=True, slots=True)
class _Append:
    entry: Entry
    waiter: asyncio.Future[Any]
    size: int


@dataclass(frozen=True, slots=True)
class _Task:
    call: Callable[[Store], Committed | None] | None
    """None: close the store."""
    waiter: asyncio.Future[Any]


class Writer:
    """Owns a store, and works on it in the order of the calls. `deliver` is called in the event loop, in the same order."""

    def __init__(self, store: Store, deliver: Deliver, *, sync_seconds: float, key_seconds: float) -> None:
        """Start the thread. `sync_seconds`: how long data may stay unsynced when not every append is synced."""
        self._store = store
        self._deliver = deliver
        self._sync_seconds = sync_seconds
        self._key_seconds = key_seconds
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Append | _Task] = queue.SimpleQueue()
        self._sync_due = 0.0
        self._sync_failed = False
        # A daemon: a program that forgot to close the log can exit, which is no worse for the log than a crash.
        threading.Thread(target=self._work, name="event-log-writer", daemon=True).start()

    def append(self, entry: Entry) -> "asyncio.Future[Any]":
        """Return a future of the entry's `Appended`."""
        waiter = self._loop.create_future()
        self._jobs.put(_Append(entry, waiter, sum(map(len, entry.blocks))))
        return waiter

    def run(self, call: Callable[[Store], Committed | None]) -> "asyncio.Future[Any]":
        """Return a future of the result of `call`, which changes the store and may raise LogError."""
        waiter = self._loop.create_future()
        self._jobs.put(_Task(call, waiter))
        return waiter

    def close(self) -> "asyncio.Future[Any]":
        """Return a future that resolves when all jobs are done and the store is closed; no call may follow."""
        waiter = self._loop.create_future()
        self._jobs.put(_Task(None, waiter))
        return waiter

    def _work(self) -> None:
        following: _Append | _Task | None = None
        while True:
            job, following = following or self._next(), None
            if isinstance(job, _Append):
                group, following = self._gather(job)
                self._append(group)
            elif isinstance(job, _Task):
                if job.call is None:
                    self._attempt(job.waiter, self._store.close)
                    return
                self._attempt(job.waiter, partial(self._run, job.call))
            self._keep_synced()

    def _run(self, call: Callable[[Store], Committed | None]) -> Committed | None:
        try:
            if self._store.file.room() >= 0:
                return call(self._store)
        except LogFull:
            pass
        self._store.file.checkpoint()  # the write-ahead log may be what fills the device, and removals must work there
        return call(self._store)

    def _next(self) -> _Append | _Task | None:
        """Return the next job, None when a sync is due."""
        if not self._waits_for_sync:
            return self._jobs.get()
        try:
            return self._jobs.get(timeout=max(0.0, self._sync_due - time.monotonic()))
        except queue.Empty:
            return None

    @property
    def _waits_for_sync(self) -> bool:
        return self._store.unsynced and not self._store.always

    def _gather(self, first: _Append) -> tuple[list[_Append], _Append | _Task | None]:
        """Return the waiting appends that fit one group, and the job after them that does not."""
        group, events, size = [first], len(first.entry.blocks), first.size
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, None
            if isinstance(job, _Task):
                return group, job
            events += len(job.entry.blocks)
            size += job.size
            if events > _GROUP_EVENTS or size > _GROUP_BYTES:
                return group, job
            group.append(job)

    def _append(self, group: Sequence[_Append]) -> None:
        was_synced = not self._store.unsynced
        try:
            committed = Group(self._store, [job.entry for job in group], key_seconds=self._key_seconds).commit()
        except LogFull as error:
            if len(group) == 1:
                self._tell(None, [(group[0].waiter, error)])
                return
            for job in group:  # the small ones may still fit
                self._append([job])
        except Exception as error:  # noqa: BLE001 - the waiters raise it
            self._tell(None, [(job.waiter, error) for job in group])
        else:
            if was_synced:
                self._sync_due = time.monotonic() + self._sync_seconds
            self._tell(committed, [(job.waiter, job.entry.outcome) for job in group])

    def _attempt(self, waiter: "asyncio.Future[Any]", call: Callable[[], Committed | None]) -> None:
        try:
            committed = call()
        except Exception as error:  # noqa: BLE001 - the waiter raises it
            self._tell(None, [(waiter, error)])
        else:
            self._tell(committed, [(waiter, committed)])

    def _tell(self, committed: Committed | None, outcomes: Sequence[Outcome]) -> None:
        if not self._loop.is_closed():  # else there is no waiter left
            self._loop.call_soon_threadsafe(self._deliver, committed, outcomes)

    def _keep_synced(self) -> None:
        try:
            if self._waits_for_sync and time.monotonic() >= self._sync_due:
                self._sync_due = time.monotonic() + self._sync_seconds
                self._store.sync()
            self._store.keep_wal_small()
        except LogError as error:
            if not self._sync_failed:
                structlog.get_logger().error("the event log cannot be synced", reason=str(error))
            self._sync_failed = True
        else:
            self._sync_failed = False
