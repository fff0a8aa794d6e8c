"""Mode resumable: an answer outlives its client, which can resume it."""

import asyncio
from dataclasses import replace
from functools import partial

import aiohttp
from aiohttp import web
from multidict import istr

from ...access.exchange import Exchange
from ...http.connection import comes_from_peer
from ...http.incoming import Incoming
from ...policy.last_event_id import read_last_event_id
from ...policy.refusal import Refusal
from ...streams.stamping import read_stamp
from ..body import RequestBody
from ..direct import Direct, is_subscriber, request_fields
from ..failures import failed
from ..observer import Observer
from ..spans import ask_upstream
from .answers import gone, other_credentials, other_request, refuse, unreadable
from .asked import Asked, find_retried
from .asking import ask_for_stream, note_unkept
from .conventions import Conventions
from .first_block import first_block
from .heads import head_of, private_key
from .kept_stream import KeptStream
from .naming import name_in_request
from .opening import Opening
from .peers import Peers
from .resumption import Resumption
from .store import UNFINISHED, StoreError, StreamHead

_RETRY_COUNT = istr("x-stainless-retry-count")
"""Of libraries of OpenAI and Anthropic. From 1 on, it says that they repeat a request to which they got no answer."""


class Resumable:
    """Answer requests whose answers are kept. An equal request, or one with the same Idempotency-Key, resumes the stream of the first."""

    def __init__(self, direct: Direct, observer: Observer, peers: Peers, resumption: Resumption) -> None:
        self._direct = direct
        self._observer = observer
        self._peers = peers
        self._streams = resumption.streams
        self._conventions = Conventions(direct, observer, peers, resumption)
        self.resumption = resumption
        """Answers requests for streams by their IDs."""

    async def answer(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
        """Return the response, sent except for its end. aiohttp cancels it when the client disconnects; the stream goes on."""
        try:
            return await self._conventions.answer(request, exchange) or await self._answer(request, exchange)
        except StoreError:
            return unreadable(exchange)

    async def _answer(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
        """Answer a request that is not meant for a kept answer by its name or ID."""
        route = exchange.route
        if route.methods and request.method not in route.methods:
            response = refuse(exchange, 405, "method", f"{request.method} is not allowed for {exchange.target.partition('?')[0]}")
            response.headers["Allow"] = ", ".join(route.methods)
            return response
        kept = request.method in (route.methods or ("POST",)) and request.method != "HEAD"  # an answer to HEAD has no body
        if not kept:
            return await self._direct.answer(request, exchange)
        if (request.content_length or 0) > route.max_kept_body_bytes:
            return await self._pass_on(request, exchange)
        last_event_id = read_last_event_id(request.headers, exchange.target)
        stamped = read_stamp(last_event_id)
        head = head_of(request, exchange, self._peers.new_stream_id())
        if not comes_from_peer(request):
            other = self._peers.worker_of_stream(stamped[0]) if stamped else self._peers.worker_of_key(head) if head.key else None
            if other is not None:
                return await self._peers.hand_off(other, request, exchange)
        body = request.received = self._direct.bodies.of(request, exchange, hashed=True)
        is_retry = request.headers.get(_RETRY_COUNT, "0") != "0"
        source = route.resume.name_source if route.resume is not None else None
        has_name_in_body = source is not None and source.kind == "body"
        if source is not None and not has_name_in_body:
            head = self._named(head, exchange, name_in_request(source, request, exchange.target, b""))
        if not (last_event_id or head.key or is_retry or has_name_in_body):  # its body is not needed before the upstream request
            return await self._open(request, exchange, head, body)
        try:
            if not await body.read(route.max_kept_body_bytes):
                return await self._pass_on(request, exchange) if body.refusal is None else refuse(exchange, *body.refusal)
            head = replace(head, body=body.digest)
            if source is not None and has_name_in_body:
                head = self._named(head, exchange, name_in_request(source, request, exchange.target, body.ahead))
            if is_retry and (answer := await self._join_retried(request, exchange, head, body)) is not None:
                return answer
            return await self._answer_read(request, exchange, head, body)
        finally:
            body.close()

    def _named(self, head: StreamHead, exchange: Exchange, name: str) -> StreamHead:
        """Return a head with a name, of which a client without credentials has its own."""
        return replace(head, name=private_key(name, head.credentials, exchange.route, exchange.client))

    async def _join_retried(self, request: Incoming, exchange: Exchange, head: StreamHead, body: RequestBody) -> web.StreamResponse | None:
        """Join the answer to the first of several equal requests, or return None if it ended long ago."""
        first = find_retried(self._streams, head)
        if first is None:
            other = None if comes_from_peer(request) else await self._peers.find_worker(Asked("retry", head))
            return await self._peers.hand_off(other, request, exchange) if other is not None else None
        stream = first.stream if isinstance(first, Opening) else first
        self._observer.resumed(exchange.route.path, "retry", stream.size if stream is not None else 0)
        if isinstance(first, Opening):
            return await self._join_opening(request, exchange, first, head, body)
        return await self._join(request, exchange, first, head)

    async def _pass_on(self, request: Incoming, exchange: Exchange) -> web.StreamResponse:
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
                return gone(exchange, found)
        if last_event_id:
            like = await self._streams.find_resumable(head, last_event_id)
            if like is not None and (answer := await self._join_stored(request, exchange, like.id, head)) is not None:
                return answer
            if not comes_from_peer(request) and (other := await self._peers.find_worker(Asked("event", head, last_event_id))) is not None:
                return await self._peers.hand_off(other, request, exchange)
        if stamped:
            return gone(exchange, None)
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

    async def _open(self, request: Incoming, exchange: Exchange, head: StreamHead, body: RequestBody) -> web.StreamResponse:
        """Send the upstream request, unless too many streams run."""
        refusal = self._streams.refusal(exchange.owner)
        if refusal is not None:
            return refuse(exchange, *refusal)
        route = exchange.route
        span = ask_upstream(exchange)
        fields = request_fields(request, route, span)
        body.announce(fields)
        timeout = route.subscriber_timeout if is_subscriber(request) else route.timeout

        self._observer.requested(route.path, request.method)
        ask = partial(ask_for_stream, self._direct.client, exchange, body, fields, timeout)
        private = partial(private_key, credentials=head.credentials, route=route, client=exchange.client)
        opening = self._streams.open(head, route, ask, exchange.owner, private)
        opening.request_id, opening.span = exchange.request_id, span
        opening.retries = _RETRY_COUNT in request.headers
        opening.when_done(body.end)
        try:
            answer = await opening.wait()
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            return failed(exchange, error) if body.refusal is None else refuse(exchange, *body.refusal)
        except asyncio.CancelledError:
            opening.leave()
            raise
        if isinstance(answer, KeptStream):
            return await self.resumption.follow(request, exchange, answer, 0, opening.cookies, await first_block(request, answer))
        try:
            return await self._direct.relay(request, answer, exchange)
        finally:
            body.end()

    async def _join_opening(
        self, request: Incoming, exchange: Exchange, opening: Opening, head: StreamHead, body: RequestBody
    ) -> web.StreamResponse:
        """Join a stream that another request with the same Idempotency-Key has opened."""
        if not head.asks_the_same(opening.head):
            return other_request(exchange, opening.stream)
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
            return other_credentials(exchange, stream)
        if not head.asks_the_same(stream.head):
            return other_request(exchange, stream)
        return await self.resumption.follow_from(request, exchange, stream, read_last_event_id(request.headers, exchange.target))

    async def _join_stored(self, request: Incoming, exchange: Exchange, id: str, head: StreamHead) -> web.StreamResponse | None:
        """Join a stream that may be in the store. Return None if it is gone meanwhile."""
        found = await self._streams.find(id)
        if isinstance(found, KeptStream):
            return await self._join(request, exchange, found, head)
        return gone(exchange, found) if isinstance(found, Refusal) else None
