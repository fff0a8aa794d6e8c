"""Serve the tail of one stream: an event stream on the admin port that shows its bytes as they arrive."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

from aiohttp import web

from eventstream import encode

from ...access.exchange import Exchange
from ...http.problems import problem
from ...modes.resumable.kept_stream import KeptStream
from ...modes.resumable.store import RUNNING
from ...modes.shared.stream import SharedStream
from ...streams.fan_out import FanOut
from ...streams.stamping import stamp
from ..timeline import without_secrets
from .events import send_stream
from .snapshot import Stream
from .taps import Tail, Tappable, show_block

_KEY = "{key:[0-9]{1,4}-[0-9]{1,15}}"  # that of a snapshot: the worker's number and the stream's
TAIL_PATH = f"/dashboard/streams/{_KEY}/tail"
STOP_PATH = f"/dashboard/stop/{_KEY}"
UNKNOWN_STREAM = "the stream has ended, or the dashboard has no viewer; open the dashboard and choose a stream that it shows"

_INTERVAL_SECONDS = 0.25
_INTERVALS_PER_HEARTBEAT = 40
_MOST_TAILS = 16
_MOST_HISTORY = 20


class Tails:
    """Serve tails of the streams that `find` returns by their number in the newest snapshot."""

    def __init__(self, find: Callable[[int], Stream | None]) -> None:
        self._find = find
        self._open = 0
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Tails open={self._open}>"

    def close(self) -> None:
        """End all tails."""
        self._closing.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send a stream's tail until the stream ends or the viewer disconnects."""
        if self._open >= _MOST_TAILS:
            return problem(503, f"{self._open} tails are open, the limit; close one")
        stream = self._find(stream_number(request))
        if stream is None:
            return problem(404, UNKNOWN_STREAM)
        self._open += 1
        try:
            return await send_stream(request, self._events(request, stream))
        finally:
            self._open -= 1

    async def _events(self, request: web.Request, stream: Stream) -> AsyncGenerator[bytes, None]:
        tappable = _tappable(stream)
        tail = None if tappable is None else Tail(tappable, _sent_as(stream) if isinstance(stream, KeptStream) else None)
        try:
            yield _encode("history", _history(stream))
            quiet = 0
            while not self._closing.is_set() and request.transport is not None:  # None: the viewer has disconnected
                end = _end(stream)  # checked before the drain, so that no chunk follows the end
                if tail is not None and (gathered := tail.drain()) is not None:
                    yield _encode("chunks", gathered)
                    quiet = 0
                if end is not None:
                    yield _encode("end", end)
                    return
                quiet += 1
                if quiet % _INTERVALS_PER_HEARTBEAT == 0:
                    yield encode(comment="")  # reveals a lost connection
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _INTERVAL_SECONDS)
        finally:
            if tail is not None:
                tail.close()


def stream_number(request: web.Request) -> int:
    """Return the stream's number in the key of a request's path."""
    return int(request.match_info["key"].partition("-")[2])


def _encode(type: str, facts: dict[str, Any]) -> bytes:
    return encode(json.dumps(facts, separators=(",", ":")), type=type)


def _tappable(stream: Stream) -> Tappable | None:
    match stream:
        case SharedStream():
            return stream.source
        case KeptStream():
            return stream.relay
    assert not isinstance(stream.relay, type(None))
    return stream.relay  # type: ignore[return-value]


def _history(stream: Stream) -> dict[str, Any]:
    """Return the newest blocks of the history, as sent. Their chunk boundaries are no longer known."""
    if isinstance(stream, Exchange):
        return {"blocks": []}
    fan_out: FanOut = stream.fan_out
    history = fan_out.history
    first = max(history.first, history.end - _MOST_HISTORY)
    blocks = [history.block(cursor) for cursor in range(first + 1, history.end + 1)]
    return {"blocks": [show_block(block) for block in (*blocks, history.tail) if block]}


def _end(stream: Stream) -> dict[str, Any] | None:
    """Return how a stream ended, None while it is open."""
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
    """Return a function that stamps new blocks as the kept stream sends them: with its IDs, and comments only with the next event."""

    def sent_as(blocks: list[bytes]) -> list[bytes | None]:
        number, sent = stream.fan_out.history.end, list[bytes | None]()
        for block in blocks:
            if stream.relay is not None and stream.relay.rest:
                sent.append(block)  # the unfinished block at the end
                continue
            stamped = stamp(block, stream.head.id, number + 1)
            number += stamped is not None
            sent.append(None if stamped is None else stamped[0])
        return sent

    return sent_as
