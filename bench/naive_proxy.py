"""The naive proxy: aiohttp on both sides, each chunk read and its write awaited. Its arguments are the upstream's port and its own."""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvloop
from aiohttp import web

_SESSION = web.AppKey("session", aiohttp.ClientSession)


async def _open_session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as app[_SESSION]:
        yield


async def _proxy(request: web.Request) -> web.StreamResponse:
    url = f"http://127.0.0.1:{sys.argv[1]}{request.path_qs}"
    async with request.app[_SESSION].request(request.method, url, data=await request.read()) as upstream:
        response = web.StreamResponse(status=upstream.status, headers={"Content-Type": upstream.headers["Content-Type"]})
        await response.prepare(request)
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


if __name__ == "__main__":
    app = web.Application()
    app.cleanup_ctx.append(_open_session)
    app.router.add_route("*", "/{path:.*}", _proxy)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None, loop=uvloop.new_event_loop(), backlog=16384)
