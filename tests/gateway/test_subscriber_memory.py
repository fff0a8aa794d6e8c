"""What an open subscriber of a shared stream costs the gateway."""

import asyncio
import gc
import socket
import tracemalloc
from contextlib import ExitStack
from pathlib import Path

from tests.kit.dashboard import Admin, admin
from tests.kit.upstream import EVENT_STREAM_HEAD, ScriptedUpstream, Silence
from tests.kit.waiting import GUARD_SECONDS

SUBSCRIBERS = 100
MOST_BYTES = 8_000
"""In the objects of one subscriber, 6,800 of them with uvloop. aiohttp's empty queue, its parser and the request's head are 3,700 more."""


async def subscribe(gateway: Admin, stack: ExitStack) -> None:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, b"GET /events HTTP/1.1\r\nHost: gateway\r\nAccept: text/event-stream\r\n\r\n")
    assert (await loop.sock_recv(connection, 15)).startswith(b"HTTP/1.1 200")


async def test_subscriber_keeps_little_of_its_request_while_it_listens(tmp_path: Path) -> None:
    route = {"path": "/", "mode": "shared"}
    async with (
        asyncio.timeout(GUARD_SECONDS),
        ScriptedUpstream([EVENT_STREAM_HEAD, Silence()]) as upstream,
        admin([route | {"upstream": upstream.url}], tmp_path) as gateway,
    ):
        with ExitStack() as stack:
            for _ in range(20):  # tables and caches that are there once
                await subscribe(gateway, stack)
            gc.collect()
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(SUBSCRIBERS):
                await subscribe(gateway, stack)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        assert (after - before) / SUBSCRIBERS < MOST_BYTES, (after - before) / SUBSCRIBERS
