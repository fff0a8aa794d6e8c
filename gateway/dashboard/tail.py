"""The tail of one stream: an event stream on the admin port that shows its bytes as they come."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from eventstream import encode

from ..exchange import Exchange
from ..fan_out.fan_out import FanOut
from ..fan_out.stamping import stamp
from ..problems import problem
from ..resumable.kept_stream import KeptStream
from ..resumable.store import RUNNING
from ..shared.stream import SharedStream
from .events import FIELDS, WRITE_SECONDS
from .snapshot import Stream
from .taps import Tail, Tappable, show_block
from .timeline import without_secrets

TAIL_PATH = "/dashboard/streams/{key:[0-9]{1,4}-[0-9]{1,15}}/tail"
"""The key is that of a snapshot: a worker's number and a stream's."""

_INTERVAL_SECONDS = 0.25
_INTERVALS_PER_HEARTBEAT = 40
_MOST_TAILS = 16
_MOST_HISTORY = 20


class Tails:
    """Answers those who want to see one of the streams that `find` gives by the number that the newest snapshot has of it."""

    def __init__(self, find: Callable[[int], Stream | None]) -> None:
        self._find = find
        self._open = 0
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Tails open={self._open}>"

    def close(self) -> None:
        """Ends all."""
        self._closing.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Sends a stream's tail until it has ended, or whoever asked has left."""
        if self._open >= _MOST_TAILS:
            return problem(503, f"{self._open} streams are being tailed, which is all this is made for; close one")
        stream = self._find(int(request.match_info["key"].partition("-")[2]))
        if stream is None:
            return problem(404, "this stream has ended, or nobody looks at the dashboard; open it, and tail a stream that it shows")
        self._open += 1
        try:
            response = web.StreamResponse(headers=FIELDS)
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError, TimeoutError):
                await self._send(request, response, stream)
            return response
        finally:
            self._open -= 1

    async def _send(self, request: web.Request, response: web.StreamResponse, stream: Stream) -> None:
        tappable = _tappable(stream)
        tail = None if tappable is None else Tail(tappable, _sent_as(stream) if isinstance(stream, KeptStream) else None)
        try:
            await _write(response, "history", _history(stream))
            quiet = 0
            while not self._closing.is_set() and request.transport is not None:  # None: whoever asked has left
                end = _end(stream)  # before what came is taken, so that nothing comes behind it
                if tail is not None and (gathered := tail.drain()) is not None:
                    await _write(response, "chunks", gathered)
                    quiet = 0
                if end is not None:
                    await _write(response, "end", end)
                    return
                quiet += 1
                if quiet % _INTERVALS_PER_HEARTBEAT == 0:
                    await response.write(encode(comment=""))  # shows whether anybody is there
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _INTERVAL_SECONDS)
        finally:
            if tail is not None:
                tail.close()


def add_tails(app: web.Application, tails: Tails) -> None:
    """Adds the tails to `app`, whose shutdown ends them."""

    async def close(_app: web.Application) -> None:
        tails.close()

    app.router.add_get(TAIL_PATH, tails.answer)
    app.on_shutdown.append(close)


async def _write(response: web.StreamResponse, type: str, facts: dict[str, Any]) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(encode(json.dumps(facts, separators=(",", ":")), type=type))


def _tappable(stream: Stream) -> Tappable | None:
    match stream:
        case SharedStream():
            return stream.source
        case KeptStream():
            return stream.relay
    assert not isinstance(stream.relay, type(None))
    return stream.relay  # type: ignore[return-value]


def _history(stream: Stream) -> dict[str, Any]:
    """Gives the newest blocks that are kept, as they were sent; how their chunks were cut is not known any more."""
    if isinstance(stream, Exchange):
        return {"blocks": []}
    fan_out: FanOut = stream.fan_out
    history = fan_out.history
    first = max(history.first, history.end - _MOST_HISTORY)
    blocks = [history.block(cursor) for cursor in range(first + 1, history.end + 1)]
    return {"blocks": [show_block(block) for block in (*blocks, history.tail) if block]}


def _end(stream: Stream) -> dict[str, Any] | None:
    """Tells how a stream ended, None while it has not."""
    match stream:
        case SharedStream(source=source):
            verdict, reason = ("ended" if source.state == "closed" else ""), source.last_error or ""
        case KeptStream():
            verdict, reason = ("" if stream.state == RUNNING else stream.state), stream.reason
        case _:
            assert stream.relay is not None
            verdict, reason = stream.relay.verdict, stream.relay.reason
    return {"verdict": verdict, "reason": without_secrets(reason)} if verdict else None


def _sent_as(stream: KeptStream) -> Callable[[list[bytes]], list[bytes | None]]:
    """Gives what tells how a kept stream sends the blocks that have just come: with its IDs, and comments only with the next event."""

    def sent_as(blocks: list[bytes]) -> list[bytes | None]:
        number, sent = stream.fan_out.history.end, list[bytes | None]()
        for block in blocks:
            if stream.relay is not None and stream.relay.rest:
                sent.append(block)  # the unfinished one at the end
                continue
            stamped = stamp(block, stream.head.id, number + 1)
            number += stamped is not None
            sent.append(None if stamped is None else stamped[0])
        return sent

    return sent_as
