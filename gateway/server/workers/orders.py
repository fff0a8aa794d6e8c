"""Send orders from the parent to its workers, and wait for the results: all workers adopt new routes, or none."""

import asyncio
from typing import Any, Protocol

import structlog

from ...policy.route_changes import RouteChanges
from ...policy.route_table import RouteError, RouteTable, routes_of
from ..reload import DRAINING, ReloadFailed
from ..routing import Routing
from .process import Crew, Worker

log = structlog.get_logger()

_OBEYING_SECONDS = 5.0
_SILENT = "no answer"


class Orders:
    """Pending orders. The end of a worker's process completes its orders, because its successor starts with the newest plan."""

    def __init__(self, key: bytes, routes: RouteTable) -> None:
        self._key = key
        self._routes = routes
        self._newest = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[str]] = {}

    def __repr__(self) -> str:
        return f"<Orders newest={self._newest} waiting={len(self._waiting)}>"

    @property
    def plan(self) -> dict[str, Any]:
        """The first message to a worker."""
        return {"key": self._key.hex(), "routes": tables_of(self._routes)}

    def plan_routes(self, routes: RouteTable) -> RouteChanges:
        """Give these routes to workers that start from now on."""
        changes = RouteChanges.between(self._routes, routes)
        self._routes.replace(routes)
        return changes

    async def give(self, worker: Worker, seconds: float, **order: object) -> str:
        """Send an order and wait up to `seconds` for its result. Return the error, empty on success."""
        if worker.channel is None:
            return ""
        self._newest += 1
        key = (worker.number, self._newest)
        done = self._waiting[key] = asyncio.get_running_loop().create_future()
        worker.channel.tell(order=self._newest, **order)
        try:
            async with asyncio.timeout(seconds):
                obstacle: str = await done
                return obstacle
        except TimeoutError:
            return _SILENT
        finally:
            del self._waiting[key]

    def note(self, worker: Worker, message: dict[str, Any]) -> None:
        """Record a worker's answer to an order."""
        done = self._waiting.get((worker.number, message["done"]))
        if done is not None and not done.done():
            done.set_result(message["obstacle"])

    def note_end(self, worker: Worker) -> None:
        """Complete all orders of a worker whose process has ended."""
        for (number, _), done in self._waiting.items():
            if number == worker.number and not done.done():
                done.set_result("")


class Ordered(Crew, Protocol):
    """Workers that take orders."""

    orders: Orders


async def replace_in_all(workers: Ordered, routes: RouteTable, prepare_seconds: float) -> RouteChanges:
    """Make all workers serve these routes, including those that are still starting.

    A worker that cannot adopt the routes that it prepared leaves; its successor starts with them. Raises ReloadFailed if a worker cannot
    prepare the routes.
    """
    if workers.draining:
        raise ReloadFailed(DRAINING)
    tables = tables_of(routes)
    ready = [worker for worker in workers.workers if worker.state == "ready"]
    for worker, obstacle in await _all(workers, ready, prepare_seconds + _OBEYING_SECONDS, prepare=tables):
        raise ReloadFailed(f"worker {worker.number}: {obstacle}")
    changes = workers.orders.plan_routes(routes)
    for worker in workers.workers:
        if worker not in ready and worker.channel is not None:  # it obeys once it serves
            worker.channel.tell(order=0, put=tables)
    for worker, obstacle in await _all(workers, ready, _OBEYING_SECONDS, put=tables):
        log.error("a worker still serves the old routes", worker=worker.number, reason=obstacle)
    return changes


async def _all(workers: Ordered, some: list[Worker], seconds: float, **order: object) -> list[tuple[Worker, str]]:
    """Give an order to some workers. Return those that failed, each with its error."""
    obstacles = await asyncio.gather(*(workers.orders.give(worker, seconds, **order) for worker in some))
    return [(worker, obstacle) for worker, obstacle in zip(some, obstacles, strict=True) if obstacle]


class Obedience:
    """The worker's side: carry out orders."""

    def __init__(self) -> None:
        self._prepared: tuple[object, RouteTable] | None = None

    async def obey(self, routing: Routing, order: dict[str, Any]) -> str:
        """Prepare or adopt routes. Return the error, empty on success."""
        tables = order.get("put") or order["prepare"]
        try:
            if "prepare" in order or self._prepared is None or self._prepared[0] != tables:
                routes = routes_of(tables)
                await routing.prepare(routes)
                self._prepared = tables, routes
            if "put" in order:
                routing.put(self._prepared[1])
                self._prepared = None
        except (OSError, RouteError) as error:
            return str(error)
        return ""


def tables_of(routes: RouteTable) -> list[dict[str, Any]]:
    """Return routes as tables for `routes_of` in another process, which reads their secrets itself."""
    return [route.model_dump(mode="json", exclude_unset=True) for route in routes.routes]
