"""What every process of a gateway does that serves: its event loop, its signals, its first log line."""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from ..routing.route_table import RouteTable

T = TypeVar("T")


def run(serving: Coroutine[Any, Any, T]) -> T:
    """Runs the loop of a process that has many connections and lives long."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors a stream
    sys.setswitchinterval(0.001)  # the loop waits so long for the interpreter's lock, which the store's threads take too
    gc.freeze()  # what is there now stays; the collector need not look at it again and again
    gc.set_threshold(5_000, 20, 50)
    return uvloop.run(serving)


def stop_at_signal() -> asyncio.Event:
    """Gives an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def listening_facts(url: str, admin: str, routes: RouteTable) -> dict[str, object]:
    """Gives what the log says when everything can be served."""
    return {"url": url, "admin": admin, "routes": {route.path: route.upstream for route in routes.routes}}
