"""The public port: find the route of a request, and admit or refuse it."""

from functools import partial

import structlog
from aiohttp import web

from service.tracing import Tracing

from ..access.admission import Admission
from ..access.authorization import Authorizer, Denied
from ..access.descriptors import Descriptors
from ..access.exchange import Exchange
from ..access.expiry import end_at_expiry
from ..http.accept import names_event_stream, takes_retry_ahead
from ..http.connection import comes_from_peer, when_sent
from ..http.incoming import Incoming
from ..http.malformed import find_fault
from ..http.problems import problem, retry_later
from ..modes.direct import Direct
from ..modes.resumable.kept_streams import KeptStreams
from ..modes.resumable.peers import restore_caller
from ..modes.resumable.resumable_mode import Resumable
from ..modes.resumable.resumption import Resumption
from ..modes.shared.shared_mode import Shared
from ..modes.spans import finish, serve
from ..observe.metrics import Metrics
from ..policy.paths import STREAMS_PATH
from ..policy.refusal import Refusal
from ..policy.route_table import Routes, RouteTable
from ..policy.routes import Route
from ..policy.target import is_utf8, readings, split_target
from .heap import Heap

_Handler = Direct | Shared | Resumable | Resumption
_Found = tuple[_Handler | None, Route | None]
"""What answers requests for a path, and its route. No route is known for a kept stream; without a handler there is none."""


class Proxy:
    """Answer every request on the public port."""

    def __init__(
        self,
        routes: Routes,
        direct: Direct,
        shared: Shared,
        admission: Admission,
        descriptors: Descriptors,
        metrics: Metrics,
        max_request_body_bytes: int,
        authorizer: Authorizer,
    ) -> None:
        self._routes = routes
        self._shared = shared
        self._direct = direct
        self._modes: dict[str, _Handler] = {"direct": direct, "shared": shared}
        self._resumption: Resumption | None = None
        self._admission = admission
        self._descriptors = descriptors
        self._metrics = metrics
        self._max_body = max_request_body_bytes
        self._authorizer = authorizer
        self._log = structlog.get_logger().bind()  # bound once, because it logs every stream
        self.exchanges: set[Exchange] = set()
        """The open requests."""
        self._heap = Heap()
        self.tracing: Tracing | None = None
        """Makes spans of requests, or None without a trace collector."""
        self.draining = False
        """Whether new requests are refused, because the gateway is shutting down."""

    def drain(self) -> None:
        """Refuse new requests, and answer those that wait for an upstream that is down."""
        self.draining = True
        self._shared.drain()
        self._direct.client.stop_waiting()

    async def not_ready(self) -> str | None:
        """Return why new requests are refused, or None."""
        return "draining" if self.draining else None

    @property
    def routes(self) -> RouteTable:
        """The current routes, for new requests."""
        return self._routes.current

    def serve_resumable(self, resumable: Resumable) -> None:
        """Enable mode resumable and requests for kept streams."""
        self._modes["resumable"], self._resumption = resumable, resumable.resumption

    @property
    def kept(self) -> KeptStreams | None:
        """The streams of resumable routes, or None if there never was such a route."""
        return self._resumption.streams if self._resumption is not None else None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request. aiohttp cancels the call when the client disconnects."""
        assert isinstance(request, Incoming)
        request.identify()
        opened = await self._open(request)
        if isinstance(opened, web.Response):
            return opened
        handler, exchange = opened
        owner = request.owner  # kept, because the request may change meanwhile
        exchange.owner = owner
        exchange.request_id, exchange.caller = request.request_id, request.caller
        if self.tracing is not None:
            exchange.span = serve(self.tracing, request, exchange)
        if not exchange.handed_off:
            self._admission.enter(owner)
            exchange.allowance = self._admission.allowance(owner)
        self.exchanges.add(exchange)
        self._heap.note_open(len(self.exchanges))
        if request.caller is not None and request.caller.expires_at:
            end_at_expiry(exchange, request.caller.expires_at)
        try:
            return await handler.answer(request, exchange)
        finally:
            if exchange.expiry is not None:
                exchange.expiry.cancel()
            self.exchanges.discard(exchange)
            finish(exchange)
            self._heap.note_open(len(self.exchanges))
            if not exchange.handed_off:
                when_sent(request, partial(self._admission.leave, owner))
                self._close(exchange)

    async def _open(self, request: Incoming) -> tuple[_Handler, Exchange] | web.Response:
        """Admit a request. Return the answer if it is refused or already answered, as a preflight is."""
        authority, target = split_target(request.raw_path)
        path, _, _ = target.partition("?")
        found = handler, route = self._find(path)
        fault = find_fault(request, authority)
        if authority:
            request.set_field("Host", authority)  # it replaces Host (RFC 9112 section 3.2.2)
        if fault is None and route is not None and route.cors is not None and request.apply_cors(route.cors, route.methods):
            return web.Response(status=204, headers={"Server": "gateway"})  # a preflight, which browsers send without credentials
        refusal = fault or self._first_refusal(request, found, target)
        if refusal is not None or handler is None:
            return self._refuse(request, found, refusal or Refusal(404, "no-route", ""))
        handed_off = comes_from_peer(request)  # counted and admitted by the worker that received it
        restore_caller(request)
        try:
            if not handed_off:
                target = await self._authorizer.authorize(request, route, target)
        except Denied as denied:  # guesses of credentials count toward the rate too
            if (too_soon := self._admission.too_soon(request.owner)) is not None:
                return self._refuse(request, found, too_soon)
            self._metrics.rejected(denied.refusal.reason, denied.refusal.status)
            return denied.answer()
        if not handed_off and (overload := self._overload(request, route)) is not None:
            if route is not None and route.mode == "shared" and names_event_stream(request.headers):
                self._metrics.rejected(overload.reason, overload.status)
                return retry_later()
            return self._refuse(request, found, overload)
        wants_retry = takes_retry_ahead(request)
        return handler, Exchange(route, request.method, target, request.client, wants_retry=wants_retry, handed_off=handed_off)

    def _refuse(self, request: Incoming, found: _Found, refusal: Refusal) -> web.Response:
        status, reason, detail = refusal
        self._metrics.rejected(reason, status)
        handler, route = found
        if handler is not None and route is None:
            cors = self._routes.current.cors_of_streams(request.headers.get("Origin", ""))
            if cors is not None:
                request.apply_cors(cors, ())
        headers = {"Allow": ", ".join(route.methods if route is not None else ())} if status == 405 else {}
        if reason == "client-rate":
            headers["Retry-After"] = str(self._admission.retry_after_seconds(request.owner))
        response = problem(status, detail, headers, reason)
        if reason in ("malformed", "target"):
            response.force_close()  # it is unknown where the next request begins
        return response

    def _overload(self, request: Incoming, route: Route | None) -> Refusal | None:
        refusal = self._admission.refusal(request.owner)
        if refusal is None and (route is None or route.mode != "shared"):  # a shared stream may need no connection of its own
            refusal = self._descriptors.refuse_upstream()
        return refusal

    def _find(self, path: str) -> _Found:
        if self._resumption is not None and path.startswith(STREAMS_PATH):
            return self._resumption, None
        route = self._routes.current.find(path)
        return (self._modes[route.mode], route) if route is not None else (None, None)

    def _first_refusal(self, request: web.BaseRequest, found: _Found, target: str) -> Refusal | None:
        """Return the refusal of the first rule that the request breaks, None without one."""
        if self.draining:
            return Refusal(503, "draining", "the gateway is shutting down; retry later")
        handler, route = found
        path, _, query = target.partition("?")
        if not path.startswith("/"):
            return Refusal(400, "target", f"the request target must be a path that begins with /, got {path!r}")
        if request.body_exists and not is_utf8(request.raw_path):
            return Refusal(400, "target", "the target of a request with a body must be UTF-8; percent-encode other bytes")
        if handler is None:
            prefixes = ", ".join(route.path for route in self._routes.current.routes)
            return Refusal(404, "no-route", f"no route for {path}; there are routes for {prefixes}")
        if any(self._find(reading) != found for reading in readings(path)):  # otherwise it would bypass the rules of that route
            return Refusal(
                400, "target", f"an upstream may take {path} for a path of another route; send it without dots, //, \\ or needless %xx"
            )
        return _refuse_method(request, route, path) or self._refuse_length(request) or _refuse_query(route, query)

    def _refuse_length(self, request: web.BaseRequest) -> Refusal | None:
        length = request.content_length
        if length is not None and length > self._max_body:
            return Refusal(413, "body", f"the body has {length} bytes, the limit is {self._max_body}")
        return None

    def _close(self, exchange: Exchange) -> None:
        self._metrics.closed(exchange)
        if exchange.event_stream and exchange.relay is not None:
            self._log.info("stream closed", **exchange.facts())


def _refuse_method(request: web.BaseRequest, route: Route | None, path: str) -> Refusal | None:
    allowed = route.methods if route is not None and route.mode != "resumable" else ()  # that mode resumes by other methods too
    if request.method in ("CONNECT", "TRACE") or (allowed and request.method not in allowed):
        return Refusal(405, "method", f"{request.method} is not allowed for {path}")
    return None


def _refuse_query(route: Route | None, query: str) -> Refusal | None:
    if route is None or route.known_parameters is None or (name := route.unknown_parameter(query)) is None:
        return None
    known = ", ".join(sorted(route.known_parameters))
    return Refusal(400, "query", f"the query parameter {name[:100]!r} is not allowed for {route.path}, allowed are {known}; leave it out")
