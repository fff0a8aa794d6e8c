"""A server of the Model Context Protocol with slow tools, and resumable answers if it keeps its events."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage
from starlette.types import Message, Receive, Scope, Send

from tests.kit.waiting import GUARD_SECONDS

RETRY_MS = 300


class Events(EventStore):
    """Keep all events in memory; an ID is the event's number."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        last = int(last_event_id)
        stream = self._events[last - 1][0]
        for number, (of, message) in enumerate(self._events[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class SlowServer:
    """The server. Its tool `count` reports each number when the test allows it, `think` does not report them."""

    def __init__(self, *, stores: bool = True) -> None:
        self.calls = 0
        """Number of calls of the tools."""
        self.said: list[int] = []
        self.resumptions: list[str] = []
        """The `Last-Event-ID` of each request that had one."""
        self.own_streams = 0
        """Open streams of sessions: GET requests without `Last-Event-ID`."""
        self._allowed = asyncio.Semaphore(0)
        mcp = MCPServer("slow")
        mcp.tool()(self.count)
        mcp.tool()(self.think)
        events = Events() if stores else None
        self._app = mcp.streamable_http_app(event_store=events, retry_interval=RETRY_MS if stores else None)

    async def count(self, to: int, context: Context) -> str:
        """Count from one, and report each number as progress."""
        self.calls += 1
        for number in range(1, to + 1):
            await self._allowed.acquire()
            await context.report_progress(number, to, f"number {number}, Zahl {number} 🌊")
            self.said.append(number)
        return f"counted to {to}"

    async def think(self, to: int) -> str:
        """Count from one in silence."""
        self.calls += 1
        for number in range(1, to + 1):
            await self._allowed.acquire()
            self.said.append(number)
        return f"counted to {to}"

    async def say(self, *numbers: int) -> None:
        """Let the tool count these next numbers, and wait until it has."""
        for _ in numbers:
            self._allowed.release()
        async with asyncio.timeout(GUARD_SECONDS):
            while self.said[-len(numbers) :] != list(numbers):
                await asyncio.sleep(0.005)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the ASGI application at any path, record resumptions when their answer begins, and count the open streams of sessions."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.resumptions += [value.decode() for name, value in scope["headers"] if name == b"last-event-id"]
            await send(message)

        is_own = scope["type"] == "http" and scope["method"] == "GET" and not any(name == b"last-event-id" for name, _ in scope["headers"])
        self.own_streams += is_own
        try:
            await self._app(scope | {"path": "/mcp"} if scope["type"] == "http" else scope, receive, noting)
        finally:
            self.own_streams -= is_own


@contextlib.asynccontextmanager
async def serve(server: SlowServer) -> AsyncIterator[str]:
    """Serve on a free port of 127.0.0.1 in this event loop, and yield the origin."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(server, log_config=None, ws="none", timeout_graceful_shutdown=1)
        http = uvicorn.Server(config)
        serving = asyncio.create_task(http.serve([listener]))
        try:
            async with asyncio.timeout(GUARD_SECONDS):
                while not http.started:
                    await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            http.should_exit = True
            await serving
