"""Run a gateway in the test's process, with viewers of its dashboard."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from eventstream import Event, Framer, Parser
from gateway.policy.route_table import RouteTable
from gateway.policy.routes import Route
from gateway.policy.settings import Settings
from tests.kit.gateway import served
from tests.kit.waiting import GUARD_SECONDS


class Looker:
    """One open event stream of the admin port."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._framer, self._parser = Framer(), Parser()
        self._events: list[Event] = []

    async def event(self, *types: str) -> tuple[str, Any]:
        """Return type and data of the next event of one of these types, by default of any."""
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                while not self._events:
                    chunk = await self._answer.content.readany()
                    assert chunk, "the stream has ended"
                    self._events = self._parser.feed(self._framer.feed(chunk))
                event = self._events.pop(0)
                if not types or event.type in types:
                    return event.type, json.loads(event.data)

    async def snapshot(self, fits: Callable[[dict[str, Any]], object] = bool) -> dict[str, Any]:
        """Return the next snapshot that fits."""
        while True:
            _, snapshot = await self.event("snapshot")
            if fits(snapshot):
                return dict(snapshot)

    async def ended(self) -> None:
        """Wait until the stream has ended, and ignore further events."""
        async with asyncio.timeout(GUARD_SECONDS):
            while await self._answer.content.readany():
                pass


class Admin:
    """The admin port of a running gateway."""

    def __init__(self, url: str, port: int, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.port = port
        """The public port."""
        self.session = session

    @asynccontextmanager
    async def open(self, path: str) -> AsyncIterator[Looker]:
        async with self.session.get(self.url + path) as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream"), await answer.text()
            yield Looker(answer)

    @asynccontextmanager
    async def look(self) -> AsyncIterator[Looker]:
        """Yield a viewer of the dashboard."""
        async with self.open("/dashboard/events") as looker:
            yield looker

    @asynccontextmanager
    async def tail(self, key: str) -> AsyncIterator[Looker]:
        """Yield a viewer that tails the stream with this key in a snapshot."""
        async with self.open(f"/dashboard/streams/{key}/tail") as looker:
            yield looker

    async def stop(self, key: str) -> tuple[int, str]:
        """Stop the kept answer with this key in a snapshot. Return the status and the detail of an error."""
        async with self.session.post(f"{self.url}/dashboard/stop/{key}") as answer:
            if answer.content_type == "application/problem+json":
                return answer.status, (await answer.json(content_type=None))["detail"]
            return answer.status, await answer.text()

    async def refusal(self, path: str) -> tuple[int, str]:
        """Return status and detail of an error answer."""
        async with self.session.get(self.url + path) as answer:
            assert answer.headers["Content-Type"] == "application/problem+json"
            return answer.status, (await answer.json(content_type=None))["detail"]


@asynccontextmanager
async def admin(routes: Sequence[dict[str, Any]], data_dir: Path, **settings: Any) -> AsyncIterator[Admin]:
    """Serve `routes` until the block ends, which viewers must not delay."""
    table = RouteTable(Route.model_validate({"heartbeat_seconds": 0, **route}) for route in routes)
    async with (
        aiohttp.ClientSession() as session,
        served(Settings(data_dir=data_dir, drain_seconds=0.2, **settings), table) as running,
    ):
        yield Admin(running.admin, running.port, session)


def only(snapshot: dict[str, Any], what: str, **facts: object) -> dict[str, Any]:
    """Return the single entry of a snapshot's list that has these facts."""
    [found] = [entry for entry in snapshot[what] if facts.items() <= entry.items()]
    return dict(found)
