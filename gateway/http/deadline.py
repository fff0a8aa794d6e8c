"""A time limit that starts on demand. Each request needs one, and `asyncio.timeout` takes three times the CPU."""

import asyncio
from types import TracebackType
from typing import Self


class Deadline:
    """Cancel the task that entered it when the time is up, and raise TimeoutError in it. For a single use."""

    __slots__ = ("_cancelling", "_left", "_passed", "_task", "_timer")

    def __init__(self) -> None:
        self._left = self._passed = False
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Deadline {'passed' if self._passed else 'set' if self._timer is not None else 'open'}>"

    def set(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Start the limit of `seconds`. No effect if it was started before, or the task has left."""
        if not self._left and self._timer is None:
            self._timer = loop.call_later(seconds, self.fire)

    def fire(self) -> None:
        """Let it pass now; nothing comes of it when it has passed, or is left."""
        if not self._left and not self._passed:
            self._passed = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left = True
        if self._timer is not None:
            self._timer.cancel()
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error  # else the task was cancelled by other code too
