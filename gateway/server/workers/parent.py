"""Run a gateway with workers: the parent process."""

import asyncio
import os
import tempfile

import structlog

from service.event_loop import stop_at_signal

from ...access.admission import OpenCounts
from ...policy.route_table import RouteTable
from ...policy.settings import Settings
from ..listeners import bind_listeners, listening_facts, port_of, url_of
from ..reload import Reload
from .admin import serve_admin
from .pool import WorkerPool

log = structlog.get_logger()

_LONGEST_DIRECTORY = 98
"""In bytes. A socket's name adds five, and its path may have 103 bytes on BSDs, 107 on Linux (unix(7))."""


async def serve_with_workers(settings: Settings, routes: RouteTable) -> bool:
    """Serve with `settings.workers` workers until a signal, then drain them. Return whether all ended in time.

    Raises OSError if a port cannot be bound, WorkerFailed if a worker ends before it serves.
    """
    stop = stop_at_signal()
    sets = bind_listeners(settings.host, settings.port, settings.workers)
    url = url_of(settings.host, sets[0])
    with tempfile.TemporaryDirectory(prefix="gateway-", ignore_cleanup_errors=True) as directory, tempfile.TemporaryFile() as counts:
        if len(os.fsencode(directory)) > _LONGEST_DIRECTORY:
            raise OSError(f"the path {directory} is too long for Unix sockets: set TMPDIR to a directory with a shorter path")
        counts.truncate(OpenCounts.size(len(sets)))
        pool = WorkerPool(settings, routes, sets, directory, counts.fileno())
        reload = Reload(settings, pool.replace_routes, pool.timeline)
        async with serve_admin(pool, settings, port_of(sets[0]), reload) as admin, reload.at_hangup():
            announcing = asyncio.create_task(_announce(pool, listening_facts(url, admin, routes)))
            try:
                in_time = await pool.serve(stop)
            finally:
                announcing.cancel()
    log.info("stopped")
    return in_time


async def _announce(pool: WorkerPool, facts: dict[str, object]) -> None:
    await pool.until_ready()
    log.info("listening", **facts)
