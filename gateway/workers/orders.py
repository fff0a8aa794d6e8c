"""What the parent tells its workers to do, and whether they have done it: all of them put new routes in place, or none."""

import asyncio
from typing import Any, Protocol

import structlog

from ..routing.changes import RouteChanges
from ..routing.reload import DRAINING, ReloadFailed
from ..routing.route_table import RouteError, RouteTable, routes_of
from ..routing.table import Routing
from .process import Crew, Worker

log = structlog.get_logger()

_OBEYING_SECONDS = 5.0
_SILENT = "it does not answer"


class Orders:
    """Orders that have been given, until they are done. A worker that ends has done them: the next one begins with the newest plan."""

    def __init__(self, key: bytes, routes: RouteTable) -> None:
        self._key = key
        self._routes = routes
        self._newest = 0
        self._waiting: dict[tuple[int, int], asyncio.Future[str]] = {}

    def __repr__(self) -> str:
        return f"<Orders newest={self._newest} waiting={len(self._waiting)}>"

    @property
    def plan(self) -> dict[str, Any]:
        """What a worker is told first."""
        return {"key": self._key.hex(), "routes": tables_of(self._routes)}

    def plan_routes(self, routes: RouteTable) -> RouteChanges:
        """Lets workers that are started from now on have these routes."""
        changes = RouteChanges.between(self._routes, routes)
        self._routes.replace(routes)
        return changes

    async def give(self, worker: Worker, seconds: float, **order: object) -> str:
        """Gives what was in the way, empty when it was done."""
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
        """Takes a worker's answer."""
        done = self._waiting.get((worker.number, message["done"]))
        if done is not None and not done.done():
            done.set_result(message["obstacle"])

    def note_end(self, worker: Worker) -> None:
        """Takes note that the process of a worker has ended."""
        for (number, _), done in self._waiting.items():
            if number == worker.number and not done.done():
                done.set_result("")


class Ordered(Crew, Protocol):
    """Workers that take orders."""

    orders: Orders


async def replace_in_all(workers: Ordered, routes: RouteTable, prepare_seconds: float) -> RouteChanges:
    """Lets all workers serve these routes, those too that are only starting. Raises ReloadFailed.

    A worker that cannot put in place what it had prepared leaves, and is replaced by one that begins with it.
    """
    if workers.draining:
        raise ReloadFailed(DRAINING)
    tables = tables_of(routes)
    ready = [worker for worker in workers.workers if worker.state == "ready"]
    for worker, obstacle in await _all(workers, ready, prepare_seconds + _OBEYING_SECONDS, prepare=tables):
        raise ReloadFailed(f"worker {worker.number}: {obstacle}")
    changes = workers.orders.plan_routes(routes)
    for worker in workers.workers:
        if worker not in ready and worker.channel is not None:  # it obeys as soon as it serves
            worker.channel.tell(order=0, put=tables)
    for worker, obstacle in await _all(workers, ready, _OBEYING_SECONDS, put=tables):
        log.error("a worker has the old routes for now", worker=worker.number, reason=obstacle)
    return changes


async def _all(workers: Ordered, some: list[Worker], seconds: float, **order: object) -> list[tuple[Worker, str]]:
    """Gives those that have not done it, each with what was in the way."""
    obstacles = await asyncio.gather(*(workers.orders.give(worker, seconds, **order) for worker in some))
    return [(worker, obstacle) for worker, obstacle in zip(some, obstacles, strict=True) if obstacle]


class Obedience:
    """The worker's side: does what was ordered, and tells what was in the way, empty when nothing was."""

    def __init__(self) -> None:
        self._prepared: tuple[object, RouteTable] | None = None

    async def obey(self, routing: Routing, order: dict[str, Any]) -> str:
        """Prepares routes, or puts them in place."""
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
    """Gives routes as another process can read them with `routes_of`; secrets stay where they are, and it reads them there."""
    return [route.model_dump(mode="json", exclude_unset=True) for route in routes.routes]
