"""A time limit that begins late, and is not mistaken for a cancellation by others."""

import asyncio
from collections.abc import Awaitable

import pytest

from gateway.http.deadline import Deadline
from tests.kit.clock import Clock
from tests.kit.waiting import GUARD_SECONDS, settle


async def limited(seconds: float, doing: Awaitable[object]) -> None:
    with Deadline() as deadline:
        deadline.set(asyncio.get_running_loop(), seconds)
        await doing


async def failing() -> None:
    raise ValueError("its own")


async def test_slow_work_times_out_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError):
        await limited(0.001, asyncio.sleep(GUARD_SECONDS))
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


async def test_work_done_in_time_is_not_interrupted_later() -> None:
    clock = Clock()
    await limited(1, asyncio.sleep(0))
    await clock.advance(5)


async def test_cancellation_by_another_task_stays_one_even_after_the_deadline() -> None:
    task = asyncio.create_task(limited(0, asyncio.sleep(GUARD_SECONDS)))
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_time_that_begins_when_all_is_done_already_is_no_limit() -> None:
    with Deadline() as deadline:
        pass
    deadline.set(asyncio.get_running_loop(), 0)
    await settle()


async def test_error_passes_as_it_is() -> None:
    with pytest.raises(ValueError, match="its own"):
        await limited(GUARD_SECONDS, failing())
