"""The embedded store of kept streams: one SQLite file, one thread that writes, and two that read. The event loop never blocks on them."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from service.storage.async_file import AsyncFile, open_with_readers

from .sqlite_file import FORMAT
from .sqlite_reader import find_event, find_key, find_name, load, look_up
from .sqlite_writer import Append, Change, Create, Finish, Name, StreamWriter
from .store import EXPIRED, RUNNING, StoredStream, StoreError, StreamHead

_READERS = 2
_STEP_PAGES = 256
_SHRINK_SECONDS = 0.5  # the caller of `expire` has other maintenance to do

T = TypeVar("T")


_Work = Change | Sequence[Change] | Callable[[StreamWriter], object]


@dataclass(frozen=True, slots=True)
class _Job:
    work: _Work
    waiter: asyncio.Future[Any]

    @property
    def changes(self) -> Sequence[Change]:
        """Its changes to streams."""
        return () if callable(self.work) else self.work if isinstance(self.work, Sequence) else (self.work,)


class SqliteStreamStore(AsyncFile[sqlite3.Connection]):
    """A StreamStore in a directory. `open` it, and `close` it in the same event loop, or use `async with`.

    Ended streams take no memory.
    """

    def __init__(
        self, writer: StreamWriter, readers: Sequence[sqlite3.Connection], *, group_seconds: float, clock: Callable[[], float]
    ) -> None:
        """Use an open writer and readers. Call `open` instead."""
        super().__init__(writer.file.path, readers, failed=StoreError)
        self._writer = writer
        self._group_seconds = group_seconds
        self._clock = clock
        self._jobs: list[_Job] = []
        self._wanted = asyncio.Event()
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "stream-store-writer")
        self._loading = asyncio.Lock()
        self._work = asyncio.create_task(self._write())

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        retain_seconds: float = 300.0,
        group_seconds: float = 0.1,
        clock: Callable[[], float] = time.time,
        most_bytes: int = 2**32,
        share_per_owner: float = 0.5,
    ) -> Self:
        """Open the store of a directory, and create it if missing. Raises StoreError, also if another gateway has it open.

        Streams that were running when it was last open are cut, and kept for `retain_seconds` from now on. There is at most one transaction
        per `group_seconds`, so a change may wait for that time. After a crash of the process no written change is lost; after a power
        failure the newest may be.

        The store takes about `most_bytes` on disk, and one owner's streams up to their share of it. When it is full, streams give way: see
        `Space`.
        """
        open_writer = partial(
            StreamWriter, directory, retain_seconds=retain_seconds, clock=clock, most_bytes=most_bytes, share_per_owner=share_per_owner
        )
        writer, readers = await open_with_readers(open_writer, lambda writer: writer.file.connect(), _READERS)
        return cls(writer, readers, group_seconds=group_seconds, clock=clock)

    def __repr__(self) -> str:
        return f"<SqliteStreamStore {self._path} running={len(self._writer.running)} waiting={len(self._jobs)}>"

    async def create(self, head: StreamHead) -> None:
        """See StreamStore.create."""
        if not (head.id.isascii() and head.id.isprintable()):
            raise ValueError(f"the id of a stream is printable ASCII, not {head.id!r}")
        await self._submit(Create(head.id, head))

    async def name(self, id: str, name: str) -> None:
        """See StreamStore.name."""
        await self._submit(Name(id, name))

    async def append(self, id: str, blocks: bytes) -> None:
        """See StreamStore.append."""
        await self._submit(Append(id, blocks))

    async def append_all(self, parts: Sequence[tuple[str, bytes]]) -> Sequence[Exception | None]:
        """See StreamStore.append_all."""
        outcomes: Sequence[Exception | None] = await self._submit([Append(id, blocks) for id, blocks in parts])
        return outcomes

    async def finish(
        self, id: str, state: str, reason: str, keep_until: float, *, block_count: int | None = None, cost: int | None = None
    ) -> None:
        """See StreamStore.finish."""
        if state in (RUNNING, EXPIRED):
            raise ValueError(f"a stream does not end as {state!r}")
        await self._submit(Finish(id, state, reason, self._clock(), keep_until, block_count, cost))

    async def look_up(self, id: str) -> StoredStream | None:
        """See StreamStore.look_up."""
        return await self._query(lambda connection: look_up(connection, id))

    async def load(self, id: str, take: Callable[[bytes], object]) -> StoredStream | None:
        """See StreamStore.load. One stream is loaded at a time, so that the other thread is free for short queries."""
        async with self._loading:
            return await self._query(lambda connection: load(connection, self._path, id, take))

    async def find_key(self, route: str, credentials: bytes, key: str) -> str | None:
        """See StreamStore.find_key."""
        return await self._query(lambda connection: find_key(connection, route, credentials, key))

    async def find_name(self, route: str, credentials: bytes, name: str) -> str | None:
        """See StreamStore.find_name."""
        return await self._query(lambda connection: find_name(connection, route, credentials, name))

    async def find_event(self, head: StreamHead, event_id: str) -> str | None:
        """See StreamStore.find_event."""
        return await self._query(lambda connection: find_event(connection, head, event_id))

    async def expire(self, now: float) -> int:
        """See StreamStore.expire. If there is nothing to do, return unused space to the device for up to half a second."""
        dealt_with: int = await self._submit(lambda writer: writer.space.expire(now))
        until = time.monotonic() + _SHRINK_SECONDS
        while not dealt_with and time.monotonic() < until and await self._submit(_give_back):
            pass
        return dealt_with

    async def _close(self) -> None:
        self._stopping.set()
        self._wanted.set()
        await self._work
        await self._close_readers()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._writer.close)
        await asyncio.to_thread(self._thread.shutdown)

    def _submit(self, work: _Work) -> "asyncio.Future[Any]":
        self._check_open()
        waiter = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, waiter))
        self._wanted.set()
        return waiter

    async def _write(self) -> None:
        """Write all waiting jobs as one group, then wait a little for the next group to grow."""
        loop = asyncio.get_running_loop()
        while self._jobs or not self._stopping.is_set():
            await self._wanted.wait()
            jobs, self._jobs = self._jobs, []
            if not self._stopping.is_set():
                self._wanted.clear()
            self._deliver(jobs, await loop.run_in_executor(self._thread, _work, self._writer, jobs))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._group_seconds):
                    await self._stopping.wait()

    def _deliver(self, jobs: Sequence[_Job], outcomes: Sequence[object]) -> None:
        refused: dict[str, Exception] = {}
        for job, outcome in zip(jobs, outcomes, strict=True):
            each = outcome if isinstance(outcome, list) else [outcome]
            refused |= {change.id: error for change, error in zip(job.changes, each, strict=False) if isinstance(error, Exception)}
            _tell(job, outcome)
        if not refused:
            return
        waiting, self._jobs = self._jobs, []  # later changes of these streams would leave a gap
        for job in waiting:
            error = next((refused[change.id] for change in job.changes if change.id in refused), None)
            if error is None:
                self._jobs.append(job)
                continue
            refused |= {change.id: error for change in job.changes}
            _tell(job, [error] * len(job.changes) if isinstance(job.work, Sequence) else error)

    async def _query(self, call: Callable[[sqlite3.Connection], T]) -> T:
        def in_snapshot(connection: sqlite3.Connection) -> T:
            with FORMAT.transaction(connection, self._path, begin="BEGIN"):
                return call(connection)

        return await self._read(in_snapshot)


def _give_back(writer: StreamWriter) -> bool:
    return writer.file.give_back(_STEP_PAGES, most_bytes=writer.file.most_bytes)


def _work(writer: StreamWriter, jobs: Sequence[_Job]) -> list[object]:
    """Do all jobs, and return the outcome of each, or its exception. A job of several changes has a list of outcomes."""
    changes = [change for job in jobs for change in job.changes]
    made: list[Exception | None] = []
    try:
        made += writer.write(changes) if changes else ()
    except Exception as error:  # noqa: BLE001 - the waiters raise it
        made += [error] * len(changes)
    following = iter(made)
    outcomes: list[object] = []
    for job in jobs:
        if callable(job.work):
            outcomes.append(_call(writer, job.work))
        else:
            each = [next(following) for _ in job.changes]
            outcomes.append(each if isinstance(job.work, Sequence) else each[0])
    return outcomes


def _call(writer: StreamWriter, work: Callable[[StreamWriter], object]) -> object:
    try:
        return work(writer)
    except Exception as error:  # noqa: BLE001 - the waiter raises it
        return error


def _tell(job: _Job, outcome: object) -> None:
    if job.waiter.done():
        return  # cancelled
    if isinstance(outcome, StoreError):
        job.waiter.set_exception(type(outcome)(*outcome.args))  # a separate one for each waiter, because raising it adds a traceback
    elif isinstance(outcome, Exception):
        job.waiter.set_exception(outcome)
    else:
        job.waiter.set_result(outcome)
