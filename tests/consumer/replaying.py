"""A server with a fixed list of events, which it streams from where the client asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from aiohttp.test_utils import TestServer

from eventstream import encode

Manner = Literal["exact", "asked again", "from the beginning"]


@dataclass
class Replay:
    """Events 1 to `last`, one every `interval` seconds. It ends its connections after `cut` events each, if that is not 0."""

    last: int
    interval: float = 0.0
    manner: Manner = "exact"
    cut: int = 0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""
    open: int = 0
    """The number of open connections."""

    async def stream(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Last-Event-ID")
        self.asked.append(asked)
        begin = {"exact": int(asked or 0) + 1, "asked again": max(int(asked or 1), 1), "from the beginning": 1}[self.manner]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.open += 1
        try:
            for number in range(begin, self.last + 1):
                await response.write(encode(event_data(number), id=str(number), retry=10))
                if self.interval:
                    await asyncio.sleep(self.interval)
                if self.cut and number > int(asked or 0) and (number - int(asked or 0)) % self.cut == 0:
                    return response
            await asyncio.Event().wait()
        except ConnectionError:
            pass  # the client was killed
        finally:
            self.open -= 1
        return response


def event_data(number: int) -> str:
    return f"event {number} 七夕\nof the replay"


@asynccontextmanager
async def replaying(replay: Replay) -> AsyncIterator[Replay]:
    """Serve `replay` and set its `url`."""
    app = web.Application()
    app.router.add_route("*", "/", replay.stream)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    replay.url = str(server.make_url("/"))
    try:
        yield replay
    finally:
        await server.close()
