"""Event-stream responses: by sse-starlette, and by Starlette's own StreamingResponse."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse
from sse_starlette import EventSourceResponse
from starlette.types import Send

EVENT_STREAM = "text/event-stream"

EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "data": {"type": "string"},
        "event": {"type": "string"},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    },
}
"""Each event of a stream, as FastAPI and OpenAPI 3.2 describe it."""

STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
"""Headers that forbid proxies to cache, compress or buffer live data."""

STALLED = "stalled"
"""Our server sets this in a request's `state` when it disconnects a client that does not read."""

_BEHIND_SERVER_SECONDS = 1


def respond_by_sse_starlette(
    blocks: AsyncGenerator[bytes, None], drain_seconds: float, send_timeout_seconds: float | None = None
) -> EventSourceResponse:
    """Send `blocks` unchanged: sse-starlette passes bytes through.

    Its pings are off (they would be blocks without data, on which some SDKs fail; `blocks` has its own heartbeats). Its watch for
    SIGTERM gets the whole drain time, because the stream ends by itself. A send that takes longer than `send_timeout_seconds` ends with
    an error; our server disconnects such a client before that, in good order.
    """
    timeout = None if send_timeout_seconds is None else send_timeout_seconds + _BEHIND_SERVER_SECONDS
    return EventSourceResponse(blocks, headers=STREAM_HEADERS, ping=0, shutdown_grace_period=drain_seconds, send_timeout=timeout)


class PlainEventStream(StreamingResponse):
    """Send blocks unchanged, and close their generator before it ends, also when it is cancelled while the client does not read."""

    media_type = EVENT_STREAM

    def __init__(self, blocks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(blocks, headers=STREAM_HEADERS)
        self._blocks = blocks

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._blocks):
            await super().stream_response(send)
