"""Wait for facts. A guard only ends a hang: no result depends on it, and a machine that is ten times slower does not reach it."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
GUARD_SECONDS = 120.0
"""The most seconds of any wait: longer than the longest back-off of a client, 75 s. Beside three others a test of 3 s took 30 s."""


async def until(fact: Callable[[], T | None], pause: float = 0.0) -> T:
    """Return the result of `fact` once it is true; it is called at each turn of the event loop, or every `pause` seconds."""
    async with asyncio.timeout(GUARD_SECONDS):
        while not (found := fact()):
            await asyncio.sleep(pause)
    return found


async def settle(turns: int = 20) -> None:
    """Let the event loop do what is ready."""
    for _ in range(turns):
        await asyncio.sleep(0)


def wait_until(fact: Callable[[], T], what: str, timeout: float = GUARD_SECONDS, pause: float = 0.05) -> T:
    """Return the result of `fact` once it is true; after `timeout` seconds raise AssertionError saying that `what` is missing."""
    deadline = time.monotonic() + timeout
    while not (found := fact()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(pause)
    return found
