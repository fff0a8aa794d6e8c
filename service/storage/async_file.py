"""A durable file in an event loop that never waits for the disk."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Closable(Protocol):
    """A resource to be closed."""

    def close(self) -> None: ...


W = TypeVar("W", bound=Closable)
R = TypeVar("R", bound=Closable)
T = TypeVar("T")


class AsyncFile(ABC, Generic[R]):
    """A file with readers, each used by one of as many threads. Close it in the event loop that opened it, or use `async with`."""

    def __init__(self, path: Path, readers: Sequence[R], *, failed: Callable[[str], Exception]) -> None:
        """Take over the readers; `failed` is the service's error."""
        self._path = path
        self._failed = failed
        self._idle = deque(readers)
        self._threads = ThreadPoolExecutor(len(readers), f"{path.name}-reader")
        self._closing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise self._failed(f"{self._path}: it is closed")

    async def _read(self, call: Callable[[R], T]) -> T:
        """Return the result of `call` in a thread. Raises the service's errors."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, call)

    def _call(self, call: Callable[[R], T]) -> T:
        reader = self._idle.pop()
        try:
            return call(reader)
        finally:
            self._idle.append(reader)

    async def close(self) -> None:
        """Write what was taken, and release the files; may be called again."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    @abstractmethod
    async def _close(self) -> None:
        """Close the readers, and then the writer: the last connection moves the write-ahead log into the file."""

    async def _close_readers(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        for reader in self._idle:
            reader.close()


async def open_with_readers(open_writer: Callable[[], W], open_reader: Callable[[W], R], readers: int) -> tuple[W, list[R]]:
    """Open a writer and its readers in a thread. If one of them fails, or the caller is cancelled, nothing stays open."""
    resources = ExitStack()  # of an opening that succeeded

    def work() -> tuple[W, list[R]]:
        with ExitStack() as opened:
            writer = opened.enter_context(closing(open_writer()))
            found = [opened.enter_context(closing(open_reader(writer))) for _ in range(readers)]
            resources.push(opened.pop_all())
        return writer, found

    opening = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait([opening])
        resources.close()
        raise
