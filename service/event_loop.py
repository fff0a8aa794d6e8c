"""Run a service in a process that is tuned for many connections."""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(serving: Coroutine[Any, Any, T], garbage_threshold: int = 5_000) -> T:
    """Run `serving` until it ends, and return its result.

    The garbage collector starts at `garbage_threshold` new objects: each open stream has some hundred that live as long as it does. What
    exists now stays for good, and is spared.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors a stream
    sys.setswitchinterval(0.001)  # with Python's 5 ms a store's thread needs 36 ms for an append beside a busy loop, with this 4 ms
    gc.freeze()
    gc.set_threshold(garbage_threshold, 20, 50)
    return uvloop.run(serving)


def stop_at_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
