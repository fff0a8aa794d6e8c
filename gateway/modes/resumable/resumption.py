"""Requests for kept streams: send their events or their state, or stop them."""

from collections.abc import Iterable
from functools import partial

from aiohttp import web
from multidict import CIMultiDict

from ...access.authorization import Authorizer, Denied
from ...access.budget import Budget
from ...access.exchange import Exchange
from ...http.connection import comes_from_peer
from ...http.incoming import Incoming
from ...http.locations import rewrite_locations
from ...policy.last_event_id import read_last_event_id
from ...policy.paths import STREAMS_PATH
from ...policy.route_table import Routes
from ...streams.subscriber import Subscriber
from ...streams.wheel import TimerWheel
from ..observer import Observer
from ..subscription import send_stream
from . import answers
from .answers import METHODS, AnyStream, unreadable
from .asked import Asked, find_asked
from .heads import credentials_of
from .kept_stream import KeptStream
from .kept_streams import KeptStreams
from .peers import Peers, report_resumption
from .store import STOPPED, StoredStream, StoreError


class Resumption:
    """Answer requests that name a kept stream. Its route is known once the stream is found."""

    def __init__(
        self,
        streams: KeptStreams,
        routes: Routes,
        wheel: TimerWheel,
        observer: Observer,
        peers: Peers,
        authorizer: Authorizer,
        unsent: Budget,
    ) -> None:
        self.streams = streams
        self._routes = routes
        self._wheel = wheel
        self._observer = observer
        self._peers = peers
        self._authorizer = authorizer
        self._unsent = unsent

    async def answer(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
        """Answer a request for the stream whose ID is in its path."""
        try:
            return await self._answer(request, exchange)
        except StoreError:
            return unreadable(exchange)

    async def _answer(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
        if comes_from_peer(request) and request.method == "POST":
            return await self._answer_peer(request, exchange)
        if request.method not in METHODS:
            response = answers.refuse(exchange, 405, "method", f"{request.method} is not allowed for a stream")
            response.headers["Allow"] = ", ".join(METHODS)
            return response
        path, _, _ = exchange.target.partition("?")
        id = path.removeprefix(STREAMS_PATH)
        other = None if comes_from_peer(request) else self._peers.worker_of_stream(id)
        if other is not None:
            return await self._peers.hand_off(other, request, exchange)
        found = await self.streams.look_up(id)
        route_path = found.head.route if isinstance(found, KeptStream | StoredStream) else None
        cors = self._routes.current.cors_of_streams(request.headers.get("Origin", ""), route_path)
        is_preflight = cors is not None and request.apply_cors(cors, METHODS)
        if not isinstance(found, KeptStream | StoredStream):
            return answers.no_content(exchange) if is_preflight else answers.gone(exchange, found)
        return await self.answer_about(request, exchange, found)

    async def answer_about(self, request: Incoming, exchange: Exchange, stream: AnyStream) -> web.StreamResponse:
        """Answer a request for a stream that was found. Its route becomes that of the exchange."""
        head = stream.head
        exchange.known_route = stream.route if isinstance(stream, KeptStream) else self._routes.route_of(head.route)
        if request.method == "OPTIONS":  # browsers send preflights without credentials
            return answers.no_content(exchange, stream, answers.preflight_fields(stream))
        try:
            await self._authorizer.authorize_resumption(request, exchange, (head.method, head.target))
        except Denied as denied:
            exchange.refuse(denied.refusal.status, denied.refusal.reason)
            return denied.answer(answers.origin_fields(stream))
        if head.credentials not in (b"", credentials_of(request, exchange.route, exchange.target)):
            return answers.other_credentials(exchange, stream)
        if exchange.handed_off:
            report_resumption(request, exchange)
        if request.method == "DELETE":
            if isinstance(stream, KeptStream):
                stream.stop(STOPPED, "a DELETE request stopped it")
            return answers.no_content(exchange, stream, answers.state_fields(stream))
        if isinstance(stream, StoredStream) and (request.method == "GET" or stream.block_count is None):
            found = await self.streams.find(head.id)  # loads it, for its events or to count its blocks
            if not isinstance(found, KeptStream):
                return answers.gone(exchange, found)
            stream = found
        if request.method == "HEAD":
            exchange.status = 200
            return web.Response(headers=CIMultiDict([*head.fields, *answers.state_fields(stream).items()]))
        assert isinstance(stream, KeptStream)
        return await self.follow_from(request, exchange, stream, read_last_event_id(request.headers, exchange.target))

    async def _answer_peer(self, request: Incoming, exchange: Exchange) -> web.Response:
        """Send another worker the time at which the newest answer that it asks for was opened, or 404 without one."""
        newest = await find_asked(self.streams, Asked.decode(await request.read()))
        exchange.status = 200 if newest is not None else 404
        return web.Response(status=exchange.status, text=str(newest.opened_at) if newest is not None else "")

    async def follow_from(
        self, request: Incoming, exchange: Exchange, stream: KeptStream, last_event_id: str, first: bytes = b""
    ) -> web.StreamResponse:
        """Answer with the events after the last event ID, or stop a client that has every event of a complete stream from reconnecting.

        The events come behind the block `first`.
        """
        cursor = stream.cursor_after(last_event_id)
        if cursor is None:
            return answers.refuse(exchange, 400, "unknown-event", f"{last_event_id[:100]!r} is not an event ID of this stream", stream)
        if last_event_id and stream.is_over_after(cursor):
            return answers.no_content(exchange, stream) if request.method == "GET" else answers.nothing_more(exchange, stream)
        return await self.follow(request, exchange, stream, cursor, first=first)

    async def follow(
        self, request: Incoming, exchange: Exchange, stream: KeptStream, cursor: int, cookies: Iterable[str] = (), first: bytes = b""
    ) -> web.StreamResponse:
        """Send the events from a cursor on, behind the block `first`. `cookies` are for the client that opened the stream."""
        self._observer.subscribed(stream.head.route, "history" if cursor or stream.viewers or stream.ended_at else "live")
        try:
            fields = CIMultiDict([*stream.head.fields, *(("Set-Cookie", cookie) for cookie in cookies)])
            rewrite_locations(fields, stream.route, request)
            sending = send_stream(request, exchange, fields, partial(_begin, stream, cursor, first), self._wheel, self._unsent)
            del fields
            return await sending
        finally:
            stream.viewer_left()


def _begin(stream: KeptStream, cursor: int, first: bytes, subscriber: Subscriber) -> None:
    if first:
        subscriber.write(first)
    stream.fan_out.join(subscriber, cursor)
