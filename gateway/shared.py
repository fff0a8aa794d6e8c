"""Mode shared: one upstream request for all that ask for the same."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import structlog
from aiohttp import web
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict

from eventstream.client import EventSource

from .catch_up import CatchUp
from .direct import Direct
from .downstream import DownstreamProtocol, ResponseHead, end_unfinished
from .exchange import Exchange
from .fan_out import FanOut, Memory
from .following import Following, Opening
from .headers import apply_rules, end_to_end
from .metrics import Metrics
from .problems import problem
from .relay import COMPLETE, CUT, LEFT
from .routes import Route
from .shared_stream import SharedStream
from .sharing import Identity, identify, request_fields
from .subscriber import Subscriber
from .wheel import TimerWheel

log = structlog.get_logger()

_Key = tuple[str, str, Identity]
_OWN_FIELDS = ("Set-Cookie", "Content-Length", "Content-Encoding", "ETag", "Last-Modified", "Age", "Date")  # of one response, not of all
_EXPIRY_SPREAD = 0.1


class Shared:
    """Answers a request with a stream that others may follow as well."""

    def __init__(self, session: aiohttp.ClientSession, wheel: TimerWheel, memory: Memory, direct: Direct, metrics: Metrics) -> None:
        self._session = session
        self._wheel = wheel
        self._memory = memory
        self._direct = direct
        self._metrics = metrics
        self._streams: dict[_Key, SharedStream] = {}

    def __repr__(self) -> str:
        return f"<Shared streams={len(self._streams)}>"

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    async def close(self) -> None:
        """Ends all streams."""
        streams = list(self._streams.values())
        for stream in streams:
            stream.stop()
        for stream in streams:
            await stream.stopped()

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Gives the response, sent except for its end. Cancelling it, as aiohttp does when the client leaves, lets the stream go on."""
        route = exchange.route
        identity = identify(request.method, request.headers, route)
        if identity is None:
            return await self._direct.answer(request, exchange)
        key = (route.path, exchange.target, identity)
        stream = self._streams.get(key) or self._open(key, route)
        async with self._use(stream, key):
            opening = await _opened(stream, route)
            if opening is None:
                return self._refuse(exchange, 504, "time-out waiting for the head of its answer")
            match opening.outcome:
                case "refused":
                    return await self._direct.answer(request, exchange)  # which gives the client what the upstream answers to it
                case "finished":
                    return _finished(exchange)
                case "unavailable":
                    return self._refuse(exchange, 502, opening.reason)
            return await self._subscribe(request, exchange, stream)

    async def _subscribe(self, request: web.BaseRequest, exchange: Exchange, stream: SharedStream) -> web.StreamResponse:
        """Finds where the stream begins for this client, and sends it."""
        id = request.headers.get("Last-Event-ID", "")
        begin: Callable[[Subscriber], None]
        while True:
            if not id:
                source = "live"
                begin = partial(_begin, stream.fan_out, stream.fan_out.history.first if stream.route.initial == "history" else None)
            elif (found := stream.find(id)) is not None:
                source = "history"
                begin = partial(_begin, *found)
            elif reason := stream.why_not(id):
                source = "gap"
                begin = partial(stream.tell_gap, asked=id, reason=reason)
            else:
                try:
                    catch_up = stream.catch_up(id)
                except ValueError:
                    source = "gap"
                    begin = partial(stream.tell_gap, asked="", reason="Last-Event-ID cannot be sent")
                else:
                    opening = await _catch_up_opened(catch_up)
                    match opening.outcome:
                        case "finished":
                            return _finished(exchange)
                        case "refused":
                            source = "gap"
                            begin = partial(stream.tell_gap, asked=id, reason=opening.reason)
                        case _ if catch_up.find(id) is None:
                            continue  # it has come to its end meanwhile, look again
                        case _:
                            source = "catch-up"
                            begin = partial(_begin, catch_up.fan_out, catch_up.find(id))
            break
        self._metrics.subscribed(stream.route.path, source)
        return await self._send(request, exchange, stream, begin)

    async def _send(
        self, request: web.BaseRequest, exchange: Exchange, stream: SharedStream, begin: Callable[[Subscriber], None]
    ) -> web.StreamResponse:
        response = ResponseHead(status=200, headers=_response_fields(stream))
        writer = await response.prepare(request)
        assert isinstance(writer, StreamWriter)
        writer.send_headers()
        protocol = request.protocol
        assert isinstance(protocol, DownstreamProtocol)
        assert protocol.transport is not None
        subscriber = Subscriber(
            protocol.transport, self._wheel, chunked=writer.chunked, takes_retry=exchange.wants_retry, expires=self._expiry(stream.route)
        )
        exchange.status, exchange.event_stream, exchange.relay = 200, True, subscriber
        protocol.writing = subscriber
        subscriber.paused = protocol.writing_paused
        begin(subscriber)
        try:
            await subscriber.ended()
        finally:
            subscriber.end(LEFT)  # stands only when the wait was cancelled
            protocol.writing = None
        if subscriber.verdict == CUT and stream.route.on_upstream_loss == "error-event":
            subscriber.tell_error()
        elif subscriber.verdict != COMPLETE:
            end_unfinished(request, response)
        return response

    def _expiry(self, route: Route) -> int:
        seconds = route.max_connection_seconds
        if not seconds:
            return 0
        return self._wheel.now + self._wheel.ticks(seconds * random.uniform(1 - _EXPIRY_SPREAD, 1 + _EXPIRY_SPREAD))

    def _open(self, key: _Key, route: Route) -> SharedStream:
        _, target, identity = key

        def open_source(last_event_id: str, on_change: Callable[[EventSource], None]) -> EventSource:
            return EventSource(
                route.upstream + target,
                session=self._session,
                headers=request_fields(identity, route),
                last_event_id=last_event_id,
                connect_timeout_seconds=route.connect_timeout_seconds,
                read_timeout_seconds=route.idle_timeout_seconds or None,
                max_block_bytes=route.max_block_bytes,
                on_change=on_change,
            )

        def done(stream: SharedStream) -> None:
            if self._streams.get(key) is stream:
                del self._streams[key]

        reconnected = partial(self._metrics.reconnected, route.path)
        stream = SharedStream(route, open_source, self._wheel, self._memory, done=done, reconnected=reconnected)
        self._streams[key] = stream
        return stream

    @asynccontextmanager
    async def _use(self, stream: SharedStream, key: _Key) -> AsyncIterator[None]:
        """Keeps the stream while it is used, and for as long as it may linger after."""
        stream.users += 1
        try:
            yield
        finally:
            stream.users -= 1
            if not stream.users:
                asyncio.get_running_loop().call_later(stream.route.linger_seconds, self._leave_alone, stream, key)

    def _leave_alone(self, stream: SharedStream, key: _Key) -> None:
        if not stream.users:
            stream.stop()
            if self._streams.get(key) is stream:
                del self._streams[key]

    def _refuse(self, exchange: Exchange, status: int, detail: str) -> web.Response:
        exchange.status, exchange.failed = status, True
        log.warning("no answer", **exchange.facts(), upstream=exchange.route.upstream, detail=detail)
        return problem(status, f"the upstream of route {exchange.route.path}: no event stream could be had")


def _begin(fan_out: FanOut, cursor: int | None, subscriber: Subscriber) -> None:
    fan_out.join(subscriber, cursor)


def _finished(exchange: Exchange) -> web.Response:
    exchange.status = 204
    return web.Response(status=204, headers={"Cache-Control": "no-store", "Server": "gateway"})


async def _opened(following: Following, route: Route) -> Opening | None:
    """Waits for the outcome of the first attempt; None when it takes too long."""
    if following.opening.done():
        return following.opening.result()
    try:
        async with asyncio.timeout(route.first_byte_timeout_seconds or None):
            return await asyncio.shield(following.opening)
    except TimeoutError:
        return None


async def _catch_up_opened(catch_up: CatchUp) -> Opening:
    """The same for a catch-up, which must not end for want of subscribers meanwhile."""
    catch_up.users += 1
    try:
        return await asyncio.shield(catch_up.opening)
    finally:
        catch_up.users -= 1


def _response_fields(stream: SharedStream) -> CIMultiDict[str]:
    fields = end_to_end(stream.source.response_headers)
    for name in _OWN_FIELDS:
        fields.popall(name, None)
    fields.setdefault("Cache-Control", "no-cache, no-transform")
    fields["X-Accel-Buffering"] = "no"
    fields.setdefault("Server", "gateway")
    apply_rules(fields, stream.route.response_headers)
    return fields
