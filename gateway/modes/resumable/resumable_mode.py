"""Mode resumable: an answer outlives its client, which can resume it."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from ...access.authorization import Authorizer, Denied
from ...access.budget import Budget
from ...access.exchange import Exchange
from ...http.connection import comes_from_peer
from ...http.incoming import Incoming
from ...http.locations import rewrite_locations
from ...http.problems import problem
from ...policy.last_event_id import read_last_event_id
from ...policy.paths import STREAMS_PATH
from ...policy.refusal import Reason, Refusal
from ...policy.route_table import RouteTable
from ...streams.stamping import read_stamp
from ...streams.subscriber import Subscriber
from ...streams.wheel import TimerWheel
from ..body import RequestBody
from ..direct import Direct, is_subscriber, request_fields
from ..failures import failed
from ..observer import Observer
from ..spans import ask_upstream
from ..subscription import send_stream
from .answers import METHODS, AnyStream, no_content, nothing_more, origin_fields, preflight_fields, state_fields
from .asking import ask_for_stream, note_unkept
from .heads import credentials_of, head_of
from .kept_stream import KeptStream
from .kept_streams import KeptStreams
from .opening import Opening
from .peers import Peers, read_question, tell_peer
from .store import STOPPED, UNFINISHED, StoredStream, StreamHead


class Resumable:
    """Answer requests whose answers are kept, and requests that resume one."""

    def __init__(
        self,
        direct: Direct,
        streams: KeptStreams,
        routes: RouteTable,
        wheel: TimerWheel,
        observer: Observer,
        peers: Peers,
        authorizer: Authorizer,
        unsent: Budget,
    ) -> None:
        self._direct = direct
        self._streams = streams
        self._routes = routes
        self._wheel = wheel
        self._observer = observer
        self._peers = peers
        self._authorizer = authorizer
        self._unsent = unsent

    @property
    def streams(self) -> KeptStreams:
        """The kept streams."""
        return self._streams

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Return the response, sent except for its end. aiohttp cancels it when the client disconnects; the stream goes on."""
        route = exchange.route
        kept = request.method in (route.methods or ("POST",)) and request.method != "HEAD"  # an answer to HEAD has no body
        if not kept:
            return await self._direct.answer(request, exchange)
        if (request.content_length or 0) > route.max_kept_body_bytes:
            return await self._pass_on(request, exchange)
        last_event_id = read_last_event_id(request.headers, exchange.target)
        stamped = read_stamp(last_event_id)
        head = head_of(request, exchange, self._peers.new_stream_id())
        if not comes_from_peer(request):
            other = self._peers.of_stream(stamped[0]) if stamped else self._peers.of_key(head) if head.key else None
            if other is not None:
                return await self._peers.hand_over(other, request, exchange)
        assert isinstance(request, Incoming)
        body = request.received = self._direct.bodies.of(request, exchange, hashed=True)
        if not last_event_id and not head.key:  # its digest is not needed before the upstream request
            return await self._open(request, exchange, head, body)
        try:
            if not await body.read(route.max_kept_body_bytes):
                return await self._pass_on(request, exchange) if body.refusal is None else self._refuse(exchange, *body.refusal)
            return await self._answer_read(request, exchange, replace(head, body=body.digest), body)
        finally:
            body.close()

    async def _pass_on(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Answer in mode direct."""
        note_unkept(exchange)
        return await self._direct.answer(request, exchange)

    async def _answer_read(self, request: Incoming, exchange: Exchange, head: StreamHead, body: RequestBody) -> web.StreamResponse:
        """Answer a request that may resume a stream, after its body has been read."""
        last_event_id = read_last_event_id(request.headers, exchange.target)
        stamped = read_stamp(last_event_id)
        if stamped:
            found = await self._streams.find(stamped[0])
            if isinstance(found, KeptStream):
                return await self._join(request, exchange, found, head)
            if found is not None:
                return self._gone(exchange, found)
        if last_event_id:
            like = await self._streams.find_like(head, last_event_id)
            if like is not None and (answer := await self._join_stored(request, exchange, like.id, head)) is not None:
                return answer
            if not comes_from_peer(request) and (other := await self._peers.of_like(head, last_event_id)) is not None:
                return await self._peers.hand_over(other, request, exchange)
        if stamped:
            return self._gone(exchange, None)
        return await self._join_key_or_open(request, exchange, head, body)

    async def _join_key_or_open(self, request: Incoming, exchange: Exchange, head: StreamHead, body: RequestBody) -> web.StreamResponse:
        """Send the upstream request, unless a stream with the same Idempotency-Key runs, is complete, was stopped, or was too large."""
        if head.key:
            stored = await self._streams.find_stored(head)
            if stored is not None and (stored.state not in UNFINISHED or not head.asks_the_same(stored.head)):
                answer = await self._join_stored(request, exchange, stored.head.id, head)
                if answer is not None:
                    return answer
            opening = self._streams.find_opening(head)  # no await from here until another one is opened
            if opening is not None and not (opening.is_unfinished and head.asks_the_same(opening.head)):
                return await self._join_opening(request, exchange, opening, head, body)
        return await self._open(request, exchange, head, body)

    async def answer_stream(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
        """Answer a request for one stream by its ID."""
        if comes_from_peer(request) and request.method == "POST":
            return await self._answer_peer(request, exchange)
        if request.method not in METHODS:
            response = self._refuse(exchange, 405, "method", f"{request.method} is not allowed for a stream")
            response.headers["Allow"] = ", ".join(METHODS)
            return response
        path, _, _ = exchange.target.partition("?")
        id = path.removeprefix(STREAMS_PATH)
        other = None if comes_from_peer(request) else self._peers.of_stream(id)
        if other is not None:
            return await self._peers.hand_over(other, request, exchange)
        found = await self._streams.look_up(id)
        known = found if isinstance(found, KeptStream | StoredStream) else None
        cors = self._routes.cors_of_streams(request.headers.get("Origin", ""), known.head.route if known is not None else None)
        asks_only = cors is not None and request.apply_cors(cors, METHODS)
        if isinstance(found, str) or found is None:
            return no_content(exchange) if asks_only else self._gone(exchange, found)
        exchange.route = found.route if isinstance(found, KeptStream) else self._routes.route_of(found.head.route)
        if request.method == "OPTIONS":
            return no_content(exchange, found, preflight_fields(found))
        try:
            await self._authorizer.authorize_resumption(request, exchange, found.head.route, (found.head.method, found.head.target))
        except Denied as denied:
            exchange.refuse(denied.refusal.status, denied.refusal.reason)
            return denied.answer(origin_fields(found))
        if found.head.credentials not in (b"", credentials_of(request, exchange.route, exchange.target)):
            return self._refuse(exchange, 403, "forbidden", "the stream requires the credentials with which it was opened", found)
        if exchange.handed_over:
            tell_peer(request, exchange)
        return await self._answer_about(request, exchange, found)

    async def _answer_about(self, request: Incoming, exchange: Exchange, stream: AnyStream) -> web.StreamResponse:
        """Answer an authorized request for a stream. The stream is loaded only for its events, or to count its blocks."""
        if request.method == "DELETE":
            if isinstance(stream, KeptStream):
                stream.stop(STOPPED, "a DELETE request stopped it")
            return no_content(exchange, stream, state_fields(stream))
        if isinstance(stream, StoredStream) and (request.method == "GET" or stream.block_count is None):
            found = await self._streams.find(stream.head.id)
            if not isinstance(found, KeptStream):
                return self._gone(exchange, found)
            stream = found
        if request.method == "HEAD":
            exchange.status = 200
            return web.Response(headers=CIMultiDict([*stream.head.fields, *state_fields(stream).items()]))
        assert isinstance(stream, KeptStream)
        return await self._follow_from(request, exchange, stream, read_last_event_id(request.headers, exchange.target))

    async def _answer_peer(self, request: Incoming, exchange: Exchange) -> web.Response:
        """Send another worker the time at which the newest stream that a request may resume was opened, or 404 without one."""
        like = await self._streams.find_like(*read_question(await request.read()))
        exchange.status = 200 if like is not None else 404
        return web.Response(status=exchange.status, text=str(like.opened_at) if like is not None else "")

    async def _open(self, request: Incoming, exchange: Exchange, head: StreamHead, body: RequestBody) -> web.StreamResponse:
        """Send the upstream request, unless too many streams run."""
        refusal = self._streams.refusal(exchange.owner)
        if refusal is not None:
            return self._refuse(exchange, *refusal)
        route = exchange.route
        span = ask_upstream(exchange)
        fields = request_fields(request, route, span)
        body.announce(fields)
        timeout = route.subscriber_timeout if is_subscriber(request) else route.timeout

        self._observer.requested(route.path, request.method)
        ask = partial(ask_for_stream, self._direct.client, exchange, body, fields, timeout)
        opening = self._streams.open(head, route, ask, exchange.owner)
        opening.request_id, opening.span = exchange.request_id, span
        opening.when_done(body.end)
        try:
            answer = await opening.wait()
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            return failed(exchange, error) if body.refusal is None else self._refuse(exchange, *body.refusal)
        except asyncio.CancelledError:
            opening.leave()
            raise
        if isinstance(answer, KeptStream):
            return await self._follow(request, exchange, answer, 0, opening.cookies)
        try:
            return await self._direct.relay(request, answer, exchange)
        finally:
            body.end()

    async def _join_opening(
        self, request: Incoming, exchange: Exchange, opening: Opening, head: StreamHead, body: RequestBody
    ) -> web.StreamResponse:
        """Join a stream that another request with the same Idempotency-Key has opened."""
        if not head.asks_the_same(opening.head):
            return self._other_request(exchange, opening.stream)
        try:
            answer = await opening.wait()
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            return failed(exchange, error)
        if isinstance(answer, KeptStream):
            return await self._join(request, exchange, answer, head)
        return await self._open(request, exchange, head, body)  # that answer was no event stream, and belongs to the first request

    async def _join(self, request: Incoming, exchange: Exchange, stream: KeptStream, head: StreamHead) -> web.StreamResponse:
        """Join a stream that an equal request has opened before."""
        assert isinstance(request.received, RequestBody)
        request.received.close()
        if stream.head.credentials not in (b"", head.credentials):
            return self._refuse(exchange, 403, "forbidden", "the stream requires the credentials with which it was opened", stream)
        if not head.asks_the_same(stream.head):
            return self._other_request(exchange, stream)
        return await self._follow_from(request, exchange, stream, read_last_event_id(request.headers, exchange.target))

    async def _join_stored(self, request: Incoming, exchange: Exchange, id: str, head: StreamHead) -> web.StreamResponse | None:
        """Join a stream that may be in the store. Return None if it is gone meanwhile."""
        found = await self._streams.find(id)
        if isinstance(found, KeptStream):
            return await self._join(request, exchange, found, head)
        return self._gone(exchange, found) if isinstance(found, Refusal) else None

    async def _follow_from(
        self, request: web.BaseRequest, exchange: Exchange, stream: KeptStream, last_event_id: str
    ) -> web.StreamResponse:
        """Answer with the events after the last event ID, or stop a client that has every event of a complete stream from reconnecting."""
        cursor = stream.cursor_after(last_event_id)
        if cursor is None:
            return self._unknown_event(exchange, stream, last_event_id)
        if last_event_id and stream.is_over_after(cursor):
            return no_content(exchange, stream) if request.method == "GET" else nothing_more(exchange, stream)
        return await self._follow(request, exchange, stream, cursor)

    async def _follow(
        self, request: web.BaseRequest, exchange: Exchange, stream: KeptStream, cursor: int, cookies: Iterable[str] = ()
    ) -> web.StreamResponse:
        self._observer.subscribed(stream.head.route, "history" if cursor or stream.viewers or stream.ended_at else "live")
        try:
            fields = CIMultiDict([*stream.head.fields, *(("Set-Cookie", cookie) for cookie in cookies)])
            rewrite_locations(fields, stream.route, request)
            sending = send_stream(request, exchange, fields, partial(_begin, stream, cursor), self._wheel, self._unsent)
            del fields
            return await sending
        finally:
            stream.viewer_left()

    def _gone(self, exchange: Exchange, reason: Refusal | str | None) -> web.Response:
        """Return the answer for a stream that is gone, or for which there is no memory."""
        if isinstance(reason, Refusal):
            refusal = self._refuse(exchange, *reason)
        elif reason is None:
            refusal = self._refuse(exchange, 404, "no-stream", "there is no such stream")
        else:
            refusal = self._refuse(exchange, 410, "stream-gone", f"the stream is gone: {reason}")
        refusal.headers["Access-Control-Allow-Origin"] = "*"  # otherwise a page takes it for a lost connection, and reconnects forever
        return refusal

    def _unknown_event(self, exchange: Exchange, stream: KeptStream, id: str) -> web.Response:
        return self._refuse(exchange, 400, "unknown-event", f"{id[:100]!r} is not an event ID of this stream", stream)

    def _other_request(self, exchange: Exchange, stream: KeptStream | None) -> web.Response:
        detail = "this Idempotency-Key or Last-Event-ID belongs to a request with another body, method or path"
        return self._refuse(exchange, 422, "other-request", f"{detail}; send the same request, or omit the field", stream)

    def _refuse(self, exchange: Exchange, status: int, reason: Reason, detail: str, stream: AnyStream | None = None) -> web.Response:
        """Return an error, which the pages that may read the stream may read too."""
        exchange.refuse(status, reason)
        return problem(status, detail, origin_fields(stream) if stream is not None else None, reason)


def _begin(stream: KeptStream, cursor: int, subscriber: Subscriber) -> None:
    stream.fan_out.join(subscriber, cursor)
