"""Mode direct: one upstream request per downstream request."""

import asyncio
import io
import socket
import struct

import aiohttp
import structlog
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter
from multidict import CIMultiDict
from yarl import URL

from eventstream import Framer

from .admission import Admission
from .body import RequestBody
from .decoding import find_decoder
from .exchange import Exchange
from .headers import announce_client, apply_rules, end_to_end
from .metrics import Metrics
from .problems import problem
from .relay import COMPLETE, CUT, LEFT, Relay, Sink
from .routes import Route, RouteTable
from .upstream import attach
from .wheel import TimerWheel

log = structlog.get_logger()

_FLUSH_SECONDS = 10.0  # what was relayed before an upstream loss may take so long to leave before the connection is aborted


class _Head(web.StreamResponse):
    """A response whose head leaves when the gateway says so: with a body that is already here, or at once."""

    _send_headers_immediately = False


class _Whole(io.BytesIO):
    """Gathers a body that is already whole."""

    def is_closing(self) -> bool:
        return False


class Proxy:
    """Answers every request of the public port."""

    def __init__(
        self,
        routes: RouteTable,
        session: aiohttp.ClientSession,
        wheel: TimerWheel,
        admission: Admission,
        metrics: Metrics,
        max_request_body_bytes: int,
    ) -> None:
        self._routes = routes
        self._session = session
        self._wheel = wheel
        self._admission = admission
        self._metrics = metrics
        self._max_body = max_request_body_bytes
        self.exchanges: set[Exchange] = set()
        """The open ones."""
        self.draining = False
        """Whether new requests are refused, because the gateway shuts down."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Is aiohttp's request handler; a leaving client cancels it."""
        target = _origin_form(request.raw_path)
        path, _, _ = target.partition("?")
        client = request.remote or "unknown"
        route = self._routes.find(path)
        refusal = self._refuse(request, route, path) or self._admission.refusal(client)
        if refusal is not None or route is None:
            status, detail = refusal or (404, "")
            self._metrics.rejected(status)
            headers = {"Allow": ", ".join(route.methods)} if route is not None and status == 405 else None
            return problem(status, detail, headers)
        exchange = Exchange(route, request.method, target, client, wants_retry=_wants_retry(request))
        self._admission.enter(client)
        self.exchanges.add(exchange)
        try:
            return await self._answer(request, exchange)
        finally:
            self.exchanges.discard(exchange)
            self._admission.leave(client)
            self._close(exchange)

    def _refuse(self, request: web.BaseRequest, route: Route | None, path: str) -> tuple[int, str] | None:
        if self.draining:
            return 503, "the gateway is shutting down; come back later"
        if not path.startswith("/"):
            return 400, f"the request target {path!r} is not a path"
        if route is None:
            prefixes = ", ".join(route.path for route in self._routes.routes)
            return 404, f"no route for {path}; there are routes for {prefixes}"
        if request.method == "CONNECT" or (route.methods and request.method not in route.methods):
            return 405, f"{request.method} is not allowed for {path}"
        length = request.content_length
        if length is not None and length > self._max_body:
            return 413, f"the body has {length} bytes, the limit is {self._max_body}"
        return None

    async def _answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        route = exchange.route
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as first_byte:

                def wait_for_answer() -> None:
                    if route.first_byte_timeout_seconds:
                        first_byte.reschedule(loop.time() + route.first_byte_timeout_seconds)

                body = RequestBody(request, self._max_body, wait_for_answer)
                upstream = await self._session.request(
                    request.method,
                    URL(route.upstream + exchange.target, encoded=True),
                    headers=self._request_fields(request, route),
                    data=body.open(),
                    allow_redirects=False,
                    timeout=route.timeout,
                )
        except TimeoutError as error:
            what = "connecting" if isinstance(error, aiohttp.ServerTimeoutError) else "waiting for the head of its answer"
            return self._failed(exchange, 504, f"upstream {route.upstream}: time-out {what}")
        except (aiohttp.ClientError, ValueError) as error:
            if body.too_large:
                return self._failed(exchange, 413, f"the body passed {self._max_body} bytes, which is the limit")
            return self._failed(exchange, 502, f"upstream {route.upstream}: {_explain(error)}")
        try:
            exchange.status = upstream.status
            return await self._relay(request, upstream, exchange)
        finally:
            upstream.close()

    def _failed(self, exchange: Exchange, status: int, detail: str) -> web.Response:
        exchange.status = status
        self._metrics.rejected(status)
        log.warning("no answer", **exchange.facts(), detail=detail)
        return problem(status, detail)

    def _request_fields(self, request: web.BaseRequest, route: Route) -> CIMultiDict[str]:
        headers = request.headers
        fields = end_to_end(headers)
        host = fields.pop("Host", "")
        fields.popall("Expect", None)  # answered here
        if "text/event-stream" in headers.get("Accept", "") or request.method not in ("GET", "HEAD"):
            fields["Accept-Encoding"] = "identity"  # this may become an event stream, and a coded one cannot be cut at its blocks
        announce_client(fields, client=request.remote or "unknown", scheme=request.scheme, host=host)
        apply_rules(fields, route.request_headers)
        return fields

    async def _relay(self, request: web.BaseRequest, upstream: aiohttp.ClientResponse, exchange: Exchange) -> web.StreamResponse:
        response = self._head(upstream, exchange)
        writer = await response.prepare(request)
        if request.method == "HEAD" or upstream.status in (204, 304):
            return response
        assert isinstance(writer, StreamWriter)
        assert writer.transport is not None
        if upstream.content.is_eof():
            return await self._relay_whole(request, response, upstream, exchange)
        writer.send_headers()
        relay = exchange.relay = self._open_relay(request.protocol, writer.transport, writer.chunked, upstream, exchange)
        pump = None if attach(upstream, relay) else asyncio.create_task(_pump(upstream, relay, writer))
        try:
            while not relay.verdict:
                await relay.wait()
                if relay.paused:
                    await writer.drain()
                    relay.resume()
        finally:
            relay.end(LEFT)  # stands only when the wait was cancelled
            if pump is not None:
                pump.cancel()
        return self._end(request, response, exchange)

    async def _relay_whole(
        self, request: web.BaseRequest, response: web.StreamResponse, upstream: aiohttp.ClientResponse, exchange: Exchange
    ) -> web.StreamResponse:
        """Relays a body that came with its head, in one write with it."""
        body = _Whole()
        relay = exchange.relay = self._open_relay(request.protocol, body, False, upstream, exchange)
        attach(upstream, relay)
        if relay.verdict == COMPLETE:
            await response.write_eof(body.getvalue())
            return response
        await response.write(body.getvalue())
        return self._end(request, response, exchange)

    def _head(self, upstream: aiohttp.ClientResponse, exchange: Exchange) -> web.StreamResponse:
        headers = upstream.headers
        fields = end_to_end(headers)
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type == "text/event-stream":
            exchange.event_stream = True
            fields.popall("Content-Length", None)
            fields.setdefault("Cache-Control", "no-cache, no-transform")
            fields["X-Accel-Buffering"] = "no"
            if find_decoder(headers.get("Content-Encoding", "")) is not None:
                fields.popall("Content-Encoding", None)
        fields.setdefault("Server", "gateway")
        apply_rules(fields, exchange.route.response_headers)
        return _Head(status=upstream.status, reason=upstream.reason, headers=fields)

    def _open_relay(
        self,
        protocol: BaseProtocol,
        sink: Sink,
        chunked: bool,
        upstream: aiohttp.ClientResponse,
        exchange: Exchange,
    ) -> Relay:
        route = exchange.route
        idle_ticks = self._wheel.ticks(route.idle_timeout_seconds)
        if not exchange.event_stream:
            return Relay(protocol, sink, self._wheel, chunked=chunked, idle_ticks=idle_ticks)
        coding = upstream.headers.get("Content-Encoding", "identity")
        decoder = find_decoder(coding)
        if decoder is None and coding.strip().lower() not in ("", "identity"):
            return Relay(protocol, sink, self._wheel, chunked=chunked, idle_ticks=idle_ticks)  # an unknown coding passes untouched
        log.debug("stream opened", **exchange.facts())
        return Relay(
            protocol,
            sink,
            self._wheel,
            chunked=chunked,
            framer=Framer(route.max_block_bytes),
            decoder=decoder,
            heartbeat_ticks=self._wheel.ticks(route.heartbeat_seconds),
            idle_ticks=idle_ticks,
        )

    def _end(self, request: web.BaseRequest, response: web.StreamResponse, exchange: Exchange) -> web.StreamResponse:
        relay = exchange.relay
        assert relay is not None
        if relay.verdict == CUT and exchange.event_stream and exchange.route.on_upstream_loss == "error-event":
            relay.tell_error()
        elif relay.verdict != COMPLETE:
            response.force_close()
            delimited = "Transfer-Encoding" in response.headers or "Content-Length" in response.headers
            _end_unfinished(request.transport, closing_tells=delimited)
        return response

    def _close(self, exchange: Exchange) -> None:
        self._metrics.closed(exchange)
        if exchange.event_stream and exchange.relay is not None:
            log.info("stream closed", **exchange.facts())


def _end_unfinished(transport: asyncio.Transport | None, *, closing_tells: bool) -> None:
    """Ends a downstream connection so that its response does not look complete.

    With chunked coding or a length the missing end tells, so what was written may still leave, for a bounded time. A response that the
    end of the connection delimits (HTTP/1.0) needs a reset.
    """
    if transport is None:
        return
    if closing_tells:
        transport.close()
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, transport.abort)
    else:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _pump(upstream: aiohttp.ClientResponse, relay: Relay, writer: StreamWriter) -> None:
    """The way that always works: reads the body through aiohttp's stream reader."""
    try:
        async for chunk in upstream.content.iter_any():
            relay.feed(chunk)
            await writer.drain()
        relay.upstream_ended()
    except (aiohttp.ClientError, OSError) as error:
        relay.upstream_lost(str(error) or type(error).__name__)


def _origin_form(target: str) -> str:
    """Gives path and query of a request target, which may be in absolute form (RFC 9112 section 3.2.2)."""
    if target.lower().startswith(("http://", "https://")):
        _, slash, rest = target.partition("://")[2].partition("/")
        return slash + rest or "/"
    return target


def _explain(error: Exception) -> str:
    """Says what is wrong with an upstream, in words for people outside."""
    match error:
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientOSError():
            return f"connection lost: {error.strerror or error}"
        case _:
            return "its answer is not HTTP"


def _wants_retry(request: web.BaseRequest) -> bool:
    accept = request.headers.get("Accept", "*/*")
    return "text/event-stream" in accept or (request.method == "GET" and "*/*" in accept)
