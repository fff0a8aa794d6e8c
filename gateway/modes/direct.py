"""Mode direct: one upstream request per downstream request."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict, istr

from eventstream import Framer, content_codings
from eventstream.decoding import find_decoder, is_readable
from service.request_ids import REQUEST_ID
from service.tracing import Span

from ..access.exchange import Exchange
from ..access.throttle import begin_writing, open_throttle
from ..http.accept import names_event_stream
from ..http.answer import AnswerHead
from ..http.asking import UpstreamAnswer
from ..http.connection import WholeBody, comes_from_peer, connection_of
from ..http.deadline import Deadline
from ..http.flushing import end_unfinished
from ..http.headers import (
    CONTENT_ENCODING,
    SERVER,
    announce_client,
    apply_rules,
    content_encoding,
    end_to_end,
    is_delimited,
    is_event_stream,
    stream_fields,
)
from ..http.incoming import Incoming
from ..http.locations import rewrite_locations
from ..http.paths import attach, open_client
from ..http.problems import problem
from ..policy.deletion import Deletion
from ..policy.last_event_id import read_last_event_id
from ..policy.routes import Route
from ..policy.trusted_proxies import plain_address
from ..streams.error_event import UI_MESSAGES
from ..streams.flow import Sink
from ..streams.relay import COMPLETE, CUT, LEFT, Relay
from ..streams.wheel import TimerWheel
from .body import Bodies
from .failures import failed
from .observer import Observer
from .spans import answered, ask_upstream

log = structlog.get_logger()

_ACCEPT_ENCODING, _CONTENT_LENGTH, _EXPECT, _HOST, _REQUEST_ID = map(
    istr, ("Accept-Encoding", "Content-Length", "Expect", "Host", REQUEST_ID)
)


class Direct:
    """Forward a request to its upstream, and relay the answer."""

    def __init__(self, session: aiohttp.ClientSession, wheel: TimerWheel, observer: Observer, bodies: Bodies) -> None:
        self.client = open_client(session)
        """The client for upstreams, also for mode resumable."""
        self._wheel = wheel
        self._observer = observer
        self.bodies = bodies
        """The bodies of all requests, also for mode resumable."""
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger().bind()
        self._tells_openings = self._log.is_enabled_for(logging.DEBUG)
        self.note_deletion: Callable[[Deletion], None] = lambda deletion: None
        """Called with each deletion by an upstream, before the client gets the answer."""

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Return the response, sent except for its end. aiohttp cancels it when the client disconnects, which ends the upstream request."""
        route = exchange.route
        self._observer.requested(route.path, request.method)
        span = ask_upstream(exchange)
        body = self.bodies.of(request, exchange) if request.body_exists else None
        try:
            with Deadline() as first_byte:

                def wait_for_answer() -> None:
                    if route.first_byte_timeout_seconds:
                        first_byte.set(self._loop, route.first_byte_timeout_seconds)

                waits = is_subscriber(request)
                on_taken = _do_nothing if waits else wait_for_answer
                if body is None:
                    on_taken()
                upstream = await self.client.ask(
                    request.method,
                    route.upstream,
                    exchange.target,
                    fields=request_fields(request, route, span),
                    data=body.open(on_taken, first_byte.fire) if body is not None else None,
                    timeout=route.subscriber_timeout if waits else route.timeout,
                    on_connected=wait_for_answer if waits else None,
                    tls=route.tls,
                )
            if body is not None:
                body.answered()
            return await self.relay(request, upstream, exchange)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            if exchange.status:
                raise  # the upstream has answered, so this is another error
            if body is not None and body.refusal is not None:
                exchange.refuse(body.refusal.status, body.refusal.reason)
                return problem(body.refusal.status, body.refusal.detail, code=body.refusal.reason)
            return failed(exchange, error)
        finally:
            if body is not None:
                body.end()
            answered(span, exchange)

    async def relay(self, request: web.BaseRequest, upstream: UpstreamAnswer, exchange: Exchange) -> web.StreamResponse:
        """Return the response to an upstream's answer, sent except for its end, and close that answer."""
        try:
            exchange.status = upstream.status
            if request.method == "DELETE" and 200 <= upstream.status < 300:
                self.note_deletion(Deletion.done(exchange.route.upstream + exchange.target, upstream.headers))
            return await self._relay(request, upstream, exchange)
        finally:
            upstream.close()

    async def _relay(self, request: web.BaseRequest, upstream: UpstreamAnswer, exchange: Exchange) -> web.StreamResponse:
        response = _response_head(request, upstream, exchange)
        await response.prepare(request)
        if request.method == "HEAD" or upstream.status in (204, 304):
            return response
        coded = exchange.event_stream and CONTENT_ENCODING in upstream.headers  # decoded it may be much larger
        if upstream.content.is_eof() and not coded:
            return await self._relay_whole(request, response, upstream, exchange)
        connection = connection_of(request)
        sink = response.open_sink()
        throttle = open_throttle(connection, sink, exchange.allowance)
        resumes = exchange.event_stream and bool(read_last_event_id(request.headers, exchange.target))
        relay = self._open_relay(throttle or sink, response.chunked_here, upstream, exchange, resumes=resumes)
        if begin_writing(connection, relay, throttle):
            relay.pause()
        attach(upstream, relay)
        try:
            await relay.ended()
        finally:
            relay.end(LEFT)  # no effect unless the wait was cancelled
            connection.writing = None
            if throttle is not None:
                throttle.close()
        may_end = _may_end(exchange, relay)
        if not may_end:
            end_unfinished(request, response, delimited=is_delimited(response.headers))
        return response

    async def _relay_whole(
        self,
        request: web.BaseRequest,
        response: AnswerHead,
        upstream: UpstreamAnswer,
        exchange: Exchange,
    ) -> web.StreamResponse:
        """Relay a body that arrived with its head, in one write with the head."""
        body = WholeBody()
        if exchange.allowance is not None:
            await exchange.allowance.wait()
        relay = self._open_relay(body, response.chunked_here, upstream, exchange, whole=True)
        attach(upstream, relay)
        may_end = _may_end(exchange, relay)
        if exchange.allowance is not None:
            exchange.allowance.spend(relay.bytes_out)
        with contextlib.suppress(ConnectionResetError):  # the client has disconnected
            if may_end:
                await response.write_eof(body.getvalue())
            else:
                response.send(body.getvalue())
        if not may_end:
            end_unfinished(request, response, delimited=is_delimited(response.headers))
        return response

    def _open_relay(
        self, sink: Sink, chunked: bool, upstream: UpstreamAnswer, exchange: Exchange, *, resumes: bool = False, whole: bool = False
    ) -> Relay:
        """Open the relay of the body. A `whole` body has arrived, and needs no timers."""
        route = exchange.route
        framer = decoder = None
        heartbeat_ticks = 0
        if exchange.event_stream:
            coding = content_encoding(upstream.headers)
            decoder = find_decoder(coding)
            if is_readable(coding):
                framer = Framer(route.max_block_bytes, keeps_mark=True)
                heartbeat_ticks = 0 if whole else self._wheel.ticks(route.heartbeat_seconds)
            else:
                log.warning(
                    "unknown content coding; the event stream is forwarded unchanged", **exchange.facts(), content_encoding=coding[:100]
                )
            if self._tells_openings:
                self._log.debug("stream opened", **exchange.facts())
        relay = exchange.relay = Relay(
            sink,
            self._wheel,
            chunked=chunked,
            framer=framer,
            decoder=decoder,
            until_close=not is_delimited(upstream.headers),
            resumes=resumes,
            heartbeat_ticks=heartbeat_ticks,
            idle_ticks=0 if whole else self._wheel.ticks(route.idle_timeout_seconds),
        )
        return relay


def is_subscriber(request: web.BaseRequest) -> bool:
    """Whether the client does not retry after an error, as EventSource, and so waits for an upstream that is down."""
    return request.method == "GET" and not request.body_exists and names_event_stream(request.headers)


def _do_nothing() -> None:
    """Do nothing: the time limit of a subscriber begins when it has a connection."""


def request_fields(request: web.BaseRequest, route: Route, span: Span | None = None) -> CIMultiDict[str]:
    """Return the header fields of the upstream request. Those of `span` replace the client's trace fields."""
    headers = request.headers
    fields = end_to_end(headers)
    host = fields.pop(_HOST, "")
    fields.popall(_EXPECT, None)  # the gateway answers it
    if names_event_stream(headers) or request.method not in ("GET", "HEAD"):
        fields[_ACCEPT_ENCODING] = "identity"  # the answer may be an event stream, and blocks of a compressed one cannot be found
    if not comes_from_peer(request):  # the other worker has added these fields
        announce_client(fields, client=plain_address(request.remote or "unknown"), scheme=request.scheme, host=host)
    if isinstance(request, Incoming):
        fields[_REQUEST_ID] = request.request_id
    if span is not None:
        fields.update(span.fields())
    if route.preserve_host and host:
        fields[_HOST] = host
    apply_rules(fields, route.request_headers)
    return fields


def _response_head(request: web.BaseRequest, upstream: UpstreamAnswer, exchange: Exchange) -> AnswerHead:
    headers = upstream.headers
    if is_event_stream(upstream.status, headers):
        exchange.event_stream = True
        exchange.ui_messages = UI_MESSAGES in headers
        coding = content_encoding(headers)
        own = (_CONTENT_LENGTH, CONTENT_ENCODING) if content_codings(coding) else (_CONTENT_LENGTH,)
        fields = stream_fields(headers, own if is_readable(coding) else ())
    else:
        fields = end_to_end(headers)
        fields.setdefault(SERVER, "gateway")
    rewrite_locations(fields, exchange.route, request)
    apply_rules(fields, exchange.route.response_headers)
    return AnswerHead(status=upstream.status, reason=upstream.reason, headers=fields)


def _may_end(exchange: Exchange, relay: Relay) -> bool:
    """Write the end of the stream, and return whether the response may end like a complete one.

    A cut stream may, after an error event.
    """
    if relay.verdict == CUT and relay.framed and exchange.route.on_upstream_loss == "error-event":
        relay.send_error(ui_messages=exchange.ui_messages)
        return True
    relay.send_rest()
    return relay.verdict == COMPLETE
