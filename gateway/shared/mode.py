"""Mode shared: one upstream request for all that ask for the same."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from eventstream.client import EventSource
from eventstream.reconnection import Reconnection
from service.traced_source import TracedSource
from service.tracing import TRACE_FIELDS

from ..budget import Budget
from ..dashboard.timeline import Timeline
from ..deletion import Deletion
from ..direct import Direct
from ..exchange import Exchange
from ..fan_out.subscription import Begin, send_stream
from ..headers import apply_rules, end_to_end
from ..last_event_id import read_last_event_id
from ..locations import rewrite_locations
from ..metrics.metrics import Metrics
from ..problems import come_back_later, problem
from ..routing.route_table import RouteTable
from ..routing.routes import Route
from ..target import url_of
from ..upstream_errors import advise
from ..wheel import TimerWheel
from .following import Opening
from .joining import join, join_behind_gap
from .origin import Origin
from .sharing import Identity, begin_target, identify, request_fields, share_target
from .stream import SharedStream

log = structlog.get_logger()

_Key = tuple[str, str, Identity]
_OWN_FIELDS = ("Set-Cookie", "Content-Length", "Content-Encoding", "ETag", "Last-Modified", "Age", "Date")  # of one response, not of all


class Shared:
    """Answers a request with a stream that others may follow as well."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        wheel: TimerWheel,
        histories: Budget,
        direct: Direct,
        metrics: Metrics,
        timeline: Timeline,
        routes: RouteTable,
    ) -> None:
        self._session = session
        self._wheel = wheel
        self._histories = histories
        self._direct = direct
        self._metrics = metrics
        self._timeline = timeline
        self._routes = routes
        self._streams: dict[_Key, SharedStream] = {}
        self._origins: defaultdict[str, Origin] = defaultdict(Origin)

    def __repr__(self) -> str:
        return f"<Shared streams={len(self._streams)}>"

    def __len__(self) -> int:
        """How many streams there are."""
        return len(self.streams)

    @property
    def streams(self) -> set[SharedStream]:
        """Those that can be joined."""
        return set(self._streams.values())

    @property
    def history_blocks(self) -> int:
        """How many event blocks their histories hold."""
        fan_outs = [fan_out for stream in self.streams for fan_out in (stream.fan_out, *(each.fan_out for each in stream.catch_ups))]
        return sum(fan_out.history.end - fan_out.history.first for fan_out in fan_outs)

    def forget(self, deletion: Deletion) -> None:
        """Forgets the histories of streams that a DELETE has made stale."""
        for stream in self.streams:
            if deletion.covers(stream.route.upstream + stream.target, stream.source.response_headers):
                stream.forget()

    def retire(self) -> None:
        """Ends streams that nobody can join any more, because their route is another now or gone: those that nobody follows at once, those
        whose upstream is lost, and so that their subscribers come back, to the route as it is now. All others go on until then."""
        for stream in self.streams:
            if self._is_retired(stream.route):
                self._end_unused(stream)
                stream.end_if_retired()

    def _is_retired(self, route: Route) -> bool:
        return all(route.stream_kind != current.stream_kind for current in self._routes.routes)

    def drain(self) -> None:
        """Lets nobody wait any more for an upstream that is down."""
        for stream in self.streams:
            stream.drain()

    async def close(self) -> None:
        """Ends all streams."""
        streams = self.streams
        for stream in streams:
            stream.stop()
        for stream in streams:
            await stream.stopped()

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Gives the response, sent except for its end. Cancelling it, as aiohttp does when the client leaves, lets the stream go on."""
        identity = identify(request.method, request.headers, exchange.route)
        target = share_target(exchange.target, exchange.route)
        if identity is None or target is None:
            return await self._direct.answer(request, exchange)
        key = (exchange.route.stream_kind, target, identity)
        stream = self._streams.get(key) or self._streams.get(_for_any_origin(key)) or self._open(key, request, exchange)
        stream.enter()
        try:
            id = read_last_event_id(request.headers, exchange.target)
            begin = await self._find_begin(stream, begin_target(exchange.target, target, id, request.headers), id)
            if not isinstance(begin, Opening):
                fields = _response_fields(stream)
                rewrite_locations(fields, stream.route, request)
                if exchange.span is not None and stream.source.span is not None:
                    exchange.span.link(stream.source.span)
                del identity, key, target  # from here on it waits, ten thousand times perhaps: what it holds counts
                sending = send_stream(request, exchange, fields, begin, self._wheel)
                del begin, fields
                return await sending
        finally:
            self._leave(stream)
        return await self._without_stream(request, exchange, begin)

    async def _find_begin(self, stream: SharedStream, target: str, id: str) -> Begin | Opening:
        """Return how a subscriber begins that asks for `target` and has seen event `id`, or why there is no stream for it."""
        opening = await stream.opened(stream.route)
        if opening.outcome != "open":
            return opening
        while True:
            begun, begin = (
                "live",
                partial(join, stream, stream.fan_out, stream.fan_out.history.first if stream.route.initial == "history" else None),
            )
            if id and (found := stream.find(id)) is not None:
                begun, begin = "history", partial(join, stream, *found)
            elif id and (reason := stream.why_not(id)):
                begun, begin = "gap", partial(join_behind_gap, stream, id, reason)
            elif id or target != stream.target:
                catch_up = stream.catch_up(target, id)
                opening = await catch_up.opened(stream.route)
                passing = opening.again_seconds <= stream.route.wait_seconds
                if opening.outcome == "finished" or (opening.outcome == "refused" and not id and not passing):
                    return opening
                if opening.outcome == "refused" and catch_up.source.state == "closed":  # else it is asked again
                    begun, begin = "gap", partial(join_behind_gap, stream, id, opening.reason)
                elif (cursor := catch_up.begin) is None:
                    continue  # it has gone on without us, look again
                else:
                    begun, begin = "catch-up", partial(join, None, catch_up.fan_out, cursor)  # which brings upstream's `retry`
            self._metrics.subscribed(stream.route.path, begun)
            return begin

    async def _without_stream(self, request: web.BaseRequest, exchange: Exchange, opening: Opening) -> web.StreamResponse:
        """Answers when the upstream gave no event stream."""
        if opening.outcome == "refused":
            return await self._direct.answer(request, exchange)  # which gives the client what the upstream answers to it
        if opening.outcome == "finished":
            exchange.status = 204
            return web.Response(status=204, headers={"Cache-Control": "no-store", "Server": "gateway"})
        if opening.outcome in ("draining", "retired"):
            exchange.refuse(503, "draining" if opening.outcome == "draining" else "upstream-unreachable")
            return come_back_later()
        if opening.outcome == "late":
            exchange.refuse(504, "upstream-timeout")
        else:
            exchange.refuse(502, "upstream-unreachable")
        route = exchange.route
        reason = advise(opening.reason)
        log.warning("no answer", **exchange.facts(), upstream=route.upstream, detail=reason)
        told = f": {reason}" if reason.startswith("TLS: ") else ""  # others name its address, which is not for everybody
        detail = f"the upstream of route {route.path} gave no event stream{told}"
        return problem(exchange.status, detail, code=exchange.refused or "")

    def _open(self, key: _Key, request: web.BaseRequest, exchange: Exchange) -> SharedStream:
        route = exchange.route
        tracing = exchange.span.tracing if exchange.span is not None else None
        opener = exchange.span  # of the live stream; a catch-up is nobody's in particular
        first_fields = {name: request.headers[name] for name in TRACE_FIELDS if name in request.headers}

        def open_source(
            target: str, last_event_id: str, reconnection: Reconnection, on_change: Callable[[EventSource], None]
        ) -> TracedSource:
            nonlocal opener, first_fields

            def changed(source: EventSource) -> None:
                if source.state == "open":
                    self._metrics.asked(route.path, "GET")
                elif source.state == "closed":
                    self._metrics.received.close(source)
                on_change(source)

            source = TracedSource(
                url_of(route.upstream, target),
                session=self._session,
                fields=partial(request_fields, key[2], route),
                tracing=tracing,
                opener=opener,
                first_fields=first_fields,
                last_event_id=last_event_id,
                reconnection=reconnection,
                connect_timeout_seconds=route.connect_timeout_seconds,
                read_timeout_seconds=route.idle_timeout_seconds or None,
                tls=route.tls,
                cross_origin_redirects=False,  # an open redirect at the upstream would reach the admin port, with the route's secrets
                max_block_bytes=route.max_block_bytes,
                on_change=changed,
            )
            opener, first_fields = None, {}
            self._metrics.received.open(source, route.path)
            return source

        def opened(stream: SharedStream) -> None:
            answered = stream.source.response_headers
            if answered.get("Access-Control-Allow-Origin") == "*" and "origin" not in answered.get("Vary", "").lower():
                self._streams.setdefault(_for_any_origin(key), stream)

        reconnected = partial(self._metrics.reconnected, route.path)
        stream = SharedStream(
            route,
            key[1],
            open_source,
            self._wheel,
            self._histories,
            self._origins[str(URL(route.upstream, encoded=True).origin())],
            opened=opened,
            done=self._forget,
            retired=partial(self._is_retired, route),
            reconnected=reconnected,
            timeline=self._timeline,
            latency=self._metrics.latency,
        )
        self._streams[key] = stream
        return stream

    def _leave(self, stream: SharedStream) -> None:
        """Lets a stream that nobody uses any more linger, and then end; one that was only waited for ends at once."""
        stream.users -= 1
        if stream.down is not None:
            self._end_unused(stream)
        elif not stream.users:
            linger_seconds = 0 if self._is_retired(stream.route) else stream.route.linger_seconds
            asyncio.get_running_loop().call_later(linger_seconds, self._end_unused, stream)

    def _end_unused(self, stream: SharedStream) -> None:
        if not stream.users:
            stream.stop()
            self._forget(stream)

    def _forget(self, stream: SharedStream) -> None:
        self._streams = {key: each for key, each in self._streams.items() if each is not stream}


def _for_any_origin(key: _Key) -> _Key:
    """Return the key of a stream that its upstream gives to the pages of any origin. No request has it: no field has an empty name."""
    path, target, identity = key
    return path, target, (*(field for field in identity if field[0] != "origin"), ("", "any origin"))


def _response_fields(stream: SharedStream) -> CIMultiDict[str]:
    fields = end_to_end(stream.source.response_headers)
    for name in _OWN_FIELDS:
        fields.popall(name, None)
    fields.setdefault("Cache-Control", "no-cache, no-transform")
    fields["X-Accel-Buffering"] = "no"
    fields.setdefault("Server", "gateway")
    apply_rules(fields, stream.route.response_headers)
    return fields
