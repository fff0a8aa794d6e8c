"""Run a gateway in the test's process, with a routes file that changes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.policy.route_table import read_routes
from gateway.policy.settings import Settings
from gateway.server.app import Gateway
from tests.kit.downstream import Answer, Downstream, Fields
from tests.kit.gateway import served
from tests.kit.stack import route_table
from tests.kit.waiting import GUARD_SECONDS


def route(path: str, upstream: str, **keys: object) -> str:
    """Return one `[[routes]]` table without heartbeats."""
    return route_table({"path": path, "upstream": upstream, "heartbeat_seconds": 0} | keys)


def resumable(path: str, upstream: str, **keys: object) -> str:
    return route(path, upstream, mode="resumable", **keys)


def shared(path: str, upstream: str, **keys: object) -> str:
    return route(path, upstream, mode="shared", **keys)


class Reloading:
    """A running gateway and its routes file."""

    def __init__(self, gateway: Gateway, config: Path, port: int, admin: str) -> None:
        self.gateway = gateway
        self.config = config
        self.port = port
        self.admin = admin

    def write(self, *routes: str) -> None:
        """Change the file without a reload."""
        self.config.write_text("\n".join(routes))

    async def post(self, method: str = "POST", **headers: str) -> httpx.Response:
        """Send a request to `/reload`."""
        async with httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as http:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            return await http.request(method, f"{self.admin}/reload", headers=fields)

    async def reload(self, *routes: str) -> dict[str, list[str]]:
        """Reload these routes, and return the paths that the gateway names, without empty lists."""
        self.write(*routes)
        answer = await self.post()
        assert answer.status_code == 200, answer.text
        return {what: paths for what, paths in answer.json().items() if paths}

    @asynccontextmanager
    async def ask(self, target: str, headers: Fields = (), method: str = "GET", body: bytes = b"") -> AsyncIterator[Answer]:
        """Send a request on its own connection, and yield it with the head of its answer."""
        async with Downstream(self.port) as downstream:
            await downstream.ask(target, method, [("Accept", "text/event-stream"), *headers], body)
            yield await downstream.answer(method)

    async def status(self, target: str, headers: Fields = (), method: str = "GET", body: bytes = b"") -> int:
        """Send a request, return the status of its answer, and disconnect."""
        async with self.ask(target, headers, method, body) as answer:
            return answer.head.status

    async def metrics(self) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=GUARD_SECONDS) as http:
            return (await http.get(f"{self.admin}/metrics")).text


@asynccontextmanager
async def reloading(directory: Path, *routes: str, **settings: Any) -> AsyncIterator[Reloading]:
    """Serve `routes` until the block ends. The gateway must then drain and leave no task behind."""
    config = directory / "gateway.toml"
    config.write_text("\n".join(routes))
    options = Settings(config=config, data_dir=directory / "data", **{"drain_seconds": 1.0} | settings)
    before = asyncio.all_tasks()
    async with served(options, read_routes(config)) as running:
        yield Reloading(running.gateway, config, running.port, running.admin)
    async with asyncio.timeout(GUARD_SECONDS):
        while left := {task for task in asyncio.all_tasks() - before if "gateway" in repr(task.get_coro())}:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait(left, timeout=0.1)
