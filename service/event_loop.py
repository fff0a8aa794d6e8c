"""Run a service in a process that is tuned for many connections."""

import gc
import resource
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

_SWITCH_SECONDS = 0.001
"""The longest wait of the event loop and the store's threads for each other. A commit and a read need several turns: with Python's 0.005 an
append takes 36 ms beside a busy loop, with this 4 ms."""


def run(serving: Coroutine[Any, Any, T], garbage_threshold: int = 5_000) -> T:
    """Run `serving` until it ends, and return its result.

    The garbage collector starts at `garbage_threshold` new objects: each open stream has some hundred that live as long as it does. What
    exists now stays for good, and is spared.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors a stream
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(garbage_threshold, 20, 50)
    return uvloop.run(serving)
