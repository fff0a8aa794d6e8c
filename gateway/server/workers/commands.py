"""Send commands from the parent to its workers, and wait for the results: all workers adopt new routes, or none."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from ...policy.route_table import RouteChanges, RouteTable
from ..reload import ReloadFailed
from .process import Worker

log = structlog.get_logger()

_RESULT_SECONDS = 5.0
_SILENT = "no answer"


class Commands:
    """Pending commands. The end of a worker's process completes its commands, because its successor starts with the newest plan."""

    def __init__(self, key: bytes, routes: RouteTable) -> None:
        self._key = key
        self._routes = routes
        self._newest = 0
        self._pending: dict[tuple[int, int], asyncio.Future[str]] = {}

    def __repr__(self) -> str:
        return f"<Commands newest={self._newest} pending={len(self._pending)}>"

    @property
    def plan(self) -> dict[str, Any]:
        """The first message to a worker."""
        return {"key": self._key.hex(), "routes": tables_of(self._routes)}

    async def send(self, worker: Worker, seconds: float, **command: object) -> str:
        """Send a command and wait up to `seconds` for its result. Return the error, empty on success."""
        if worker.channel is None:
            return ""
        self._newest += 1
        key = (worker.number, self._newest)
        done = self._pending[key] = asyncio.get_running_loop().create_future()
        worker.channel.send(command=self._newest, **command)
        try:
            async with asyncio.timeout(seconds):
                error: str = await done
                return error
        except TimeoutError:
            return _SILENT
        finally:
            del self._pending[key]

    async def replace_routes(self, workers: Sequence[Worker], routes: RouteTable, prepare_seconds: float) -> RouteChanges:
        """Make all workers serve these routes, including those that are still starting or start from now on.

        A worker that cannot adopt the routes that it prepared leaves; its successor starts with them. Raises ReloadFailed if a worker
        cannot prepare the routes.
        """
        tables = tables_of(routes)
        ready = [worker for worker in workers if worker.state == "ready"]
        for worker, error in await self._send_to_all(ready, prepare_seconds + _RESULT_SECONDS, prepare=tables):
            raise ReloadFailed(f"worker {worker.number}: {error}")
        changes = RouteChanges.between(self._routes, routes)
        self._routes = routes
        for worker in workers:
            if worker not in ready and worker.channel is not None:  # it handles the command once it serves
                worker.channel.send(command=0, put=tables)
        for worker, error in await self._send_to_all(ready, _RESULT_SECONDS, put=tables):
            log.error("a worker still serves the old routes", worker=worker.number, reason=error)
        return changes

    async def _send_to_all(self, workers: Sequence[Worker], seconds: float, **command: object) -> list[tuple[Worker, str]]:
        """Send a command to each worker. Return those that failed, each with its error."""
        errors = await asyncio.gather(*(self.send(worker, seconds, **command) for worker in workers))
        return [(worker, error) for worker, error in zip(workers, errors, strict=True) if error]

    def note_result(self, worker: Worker, message: dict[str, Any]) -> None:
        """Record a worker's result of a command."""
        done = self._pending.get((worker.number, message["done"]))
        if done is not None and not done.done():
            done.set_result(message["error"])

    def note_end(self, worker: Worker) -> None:
        """Complete all commands of a worker whose process has ended."""
        for (number, _), done in self._pending.items():
            if number == worker.number and not done.done():
                done.set_result("")


def tables_of(routes: RouteTable) -> list[dict[str, Any]]:
    """Return routes as tables for `routes_of` in another process, which reads their secrets itself."""
    return [route.model_dump(mode="json", exclude_unset=True) for route in routes.routes]
