"""The block that a client gets ahead of the first event, so that it has an ID to resume with."""

import asyncio

from aiohttp import web

from ...streams.stamping import read_id, read_stamp
from .kept_stream import KeptStream

_PATIENCE_SECONDS = 1.0
_RETRY_MS = 3000  # the MCP clients try twice: this outlasts a restart of some seconds
_FIRST_VERSION = "2025-11-25"  # of the MCP: older clients take a block without data for a message


async def first_block(request: web.BaseRequest, stream: KeptStream) -> bytes:
    """Return a block with an ID and empty data, or nothing if the client or the upstream needs none.

    With the preset `mcp` it waits up to a second for the upstream's first block, which may have an ID of its own.
    """
    resume = stream.route.resume
    if not _takes_block_without_data(request, stream):
        return b""
    if resume is not None and resume.preset == "mcp":
        own = read_id(await _first(stream))
        if own and ((stamp := read_stamp(own)) is None or stamp[0] != stream.head.id):
            return b""
    return b"retry: %d\ndata:\nid: %b-0\n\n" % (_RETRY_MS, stream.head.id.encode())


def repeated_id(request: web.BaseRequest, stream: KeptStream, last_event_id: str) -> bytes:
    """Return a block with the last event ID that a client has sent, for clients that otherwise forget it before the next event."""
    if not _takes_block_without_data(request, stream):
        return b""
    return b"data:\nid: %b\n\n" % last_event_id.encode("utf-8", "surrogateescape")


def _takes_block_without_data(request: web.BaseRequest, stream: KeptStream) -> bool:
    resume = stream.route.resume
    if resume is None or not resume.first_block:
        return False
    return resume.preset != "mcp" or request.headers.get("MCP-Protocol-Version", "") >= _FIRST_VERSION


async def _first(stream: KeptStream) -> bytes:
    """Return the first block, or nothing if it takes too long."""
    history = stream.fan_out.history
    if not history.end:
        arrived = asyncio.Event()

        def note(_: bytes) -> bool:
            arrived.set()
            return True

        stream.watch(note)
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await arrived.wait()
        except TimeoutError:
            return b""
    return history.copy(0, 1)[0] if history.end else b""
