"""Replace the routes of a running gateway, and apply what follows from that."""

import math
from collections.abc import Awaitable, Callable

from ..access.expiry import end_revoked
from ..modes.resumable.resumable_mode import Resumable
from ..modes.shared.shared_mode import Shared
from ..policy.deletion import Deletion
from ..policy.route_table import RouteChanges, Routes, RouteTable
from ..streams.wheel import TimerWheel
from .proxy import Proxy
from .reload import DRAINING, ReloadFailed

_TURNS_PER_INTERVAL = 16  # a heartbeat is late by at most 1/16 of its interval


class Routing:
    """Put routes into force. Open requests continue unchanged; new ones use the new routes.

    `open_resumable` opens what mode resumable needs. It is called once, and the result stays open, also for streams of removed routes.
    """

    def __init__(
        self, routes: Routes, wheel: TimerWheel, shared: Shared, proxy: Proxy, open_resumable: Callable[[], Awaitable[Resumable]]
    ) -> None:
        self._routes = routes
        self._wheel = wheel
        self._shared = shared
        self._proxy = proxy
        self._open_resumable = open_resumable
        self._resumable: Resumable | None = None

    def __repr__(self) -> str:
        return f"<Routing routes={len(self._routes.current.routes)}>"

    async def prepare(self, routes: RouteTable) -> None:
        """Open what these routes need while the old ones serve. Raises OSError if that fails."""
        if self._resumable is None and any(route.mode == "resumable" for route in routes.routes):
            self._resumable = await self._open_resumable()

    def put(self, routes: RouteTable) -> RouteChanges:
        """Put routes into force for which `prepare` was called, and return the changes."""
        intervals = [seconds for route in routes.routes for seconds in (route.heartbeat_seconds, route.idle_timeout_seconds) if seconds]
        self._wheel.turn_within(min(intervals, default=math.inf) / _TURNS_PER_INTERVAL)
        if self._resumable is not None:
            self._proxy.serve_resumable(self._resumable)
        old, self._routes.current = self._routes.current, routes.reuse(self._routes.current)
        self._shared.retire()
        end_revoked(self._proxy.exchanges, routes)
        return RouteChanges.between(old, routes)

    async def replace(self, routes: RouteTable) -> RouteChanges:
        """Prepare routes and put them into force. Raises ReloadFailed if the old routes stay in force."""
        if self._proxy.draining:
            raise ReloadFailed(DRAINING)
        try:
            await self.prepare(routes)
        except OSError as error:
            raise ReloadFailed(str(error)) from error
        return self.put(routes)

    def forget(self, deletion: Deletion) -> None:
        """Forget the shared streams of what another worker's upstream has deleted."""
        self._shared.forget(deletion)
