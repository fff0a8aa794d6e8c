"""Shared by all serving processes of a gateway: the signals and the first log line."""

import asyncio
import signal

from ...policy.route_table import RouteTable


def stop_at_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def listening_facts(url: str, admin: str, routes: RouteTable) -> dict[str, object]:
    """Return the fields of the log line that announces the gateway."""
    return {"url": url, "admin": admin, "routes": {route.path: route.upstream for route in routes.routes}}
