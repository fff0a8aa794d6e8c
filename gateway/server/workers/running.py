"""Shared by all serving processes of a gateway: the event loop, the signals and the first log line."""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from ...policy.route_table import RouteTable

T = TypeVar("T")


def run(serving: Coroutine[Any, Any, T]) -> T:
    """Run the event loop, tuned for a long-lived process with many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors a stream
    sys.setswitchinterval(0.001)  # the loop waits at most 1 ms for the GIL, which the store's threads hold too
    gc.freeze()  # spares the collector the objects that stay for good
    gc.set_threshold(5_000, 20, 50)
    return uvloop.run(serving)


def stop_at_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def listening_facts(url: str, admin: str, routes: RouteTable) -> dict[str, object]:
    """Return the fields of the log line that announces the gateway."""
    return {"url": url, "admin": admin, "routes": {route.path: route.upstream for route in routes.routes}}
