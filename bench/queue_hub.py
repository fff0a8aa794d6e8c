"""The naive hub: aiohttp with a queue and a task per subscriber, fed by one upstream stream. Its arguments are the upstream's port and
its own."""

import asyncio
import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

_QUEUES = web.AppKey("queues", set[asyncio.Queue[bytes]])


async def _feed(queues: set[asyncio.Queue[bytes]]) -> None:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
        session.get(f"http://127.0.0.1:{sys.argv[1]}/events") as upstream,
    ):
        rest = b""
        async for chunk in upstream.content.iter_any():
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                for queue in queues:
                    queue.put_nowait(block + b"\n\n")


async def _run_feed(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(_feed(app[_QUEUES]))
    yield
    task.cancel()


async def _subscribe(request: web.Request) -> web.StreamResponse:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues = request.app[_QUEUES]
    queues.add(queue)
    try:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(await queue.get())
    finally:
        queues.discard(queue)


if __name__ == "__main__":
    app = web.Application()
    app[_QUEUES] = set()
    app.cleanup_ctx.append(_run_feed)
    app.router.add_get("/events", _subscribe)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
        backlog=16384,
        handler_cancellation=True,
    )
