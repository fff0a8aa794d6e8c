"""The routes of a running gateway, and what has to happen when others take their place."""

import math
from collections.abc import Awaitable, Callable

from ..auth.revocation import end_revoked
from ..deletion import Deletion
from ..proxy import Proxy
from ..resumable.mode import Resumable
from ..shared.mode import Shared
from ..wheel import TimerWheel
from .changes import RouteChanges
from .reload import DRAINING, ReloadFailed
from .route_table import RouteTable

_TURNS_PER_INTERVAL = 16  # a heartbeat is at most this part of its interval late


class Routing:
    """Puts routes in place. Requests that are open go on as they are; those that come later find the new routes.

    `open_resumable` opens what routes of mode resumable need; that is done once, and then it stays, also for streams of routes that are
    gone.
    """

    def __init__(
        self, routes: RouteTable, wheel: TimerWheel, shared: Shared, proxy: Proxy, open_resumable: Callable[[], Awaitable[Resumable]]
    ) -> None:
        self._routes = routes
        self._wheel = wheel
        self._shared = shared
        self._proxy = proxy
        self._open_resumable = open_resumable
        self._resumable: Resumable | None = None

    def __repr__(self) -> str:
        return f"<Routing routes={len(self._routes.routes)}>"

    async def prepare(self, routes: RouteTable) -> None:
        """Gets what these routes need, and lets the old ones serve. Raises OSError when it cannot be had."""
        if self._resumable is None and any(route.mode == "resumable" for route in routes.routes):
            self._resumable = await self._open_resumable()

    def put(self, routes: RouteTable) -> RouteChanges:
        """Lets these routes serve, for which `prepare` has been called; gives what is different now."""
        intervals = [seconds for route in routes.routes for seconds in (route.heartbeat_seconds, route.idle_timeout_seconds) if seconds]
        self._wheel.turn_within(min(intervals, default=math.inf) / _TURNS_PER_INTERVAL)
        if self._resumable is not None:
            self._proxy.serve_resumable(self._resumable)
        changes = RouteChanges.between(self._routes, routes)
        self._routes.replace(routes)
        self._shared.retire()
        end_revoked(self._proxy.exchanges, self._routes)
        return changes

    async def replace(self, routes: RouteTable) -> RouteChanges:
        """Does both. Raises ReloadFailed when the old routes stay."""
        if self._proxy.draining:
            raise ReloadFailed(DRAINING)
        try:
            await self.prepare(routes)
        except OSError as error:
            raise ReloadFailed(str(error)) from error
        return self.put(routes)

    def forget(self, deletion: Deletion) -> None:
        """Takes note of what another worker's upstream has deleted."""
        self._shared.forget(deletion)
