"""Mode shared: one upstream request for all equal requests."""

import asyncio
from collections import defaultdict
from functools import partial

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from ...access.exchange import Exchange
from ...http.accept import names_event_stream
from ...http.headers import apply_rules, stream_fields
from ...http.locations import rewrite_locations
from ...http.problems import problem, retry_later
from ...http.upstream_errors import advise
from ...policy.deletion import Deletion
from ...policy.last_event_id import read_last_event_id
from ...policy.refusal import Refusal
from ...policy.route_table import Routes
from ...policy.routes import Route
from ...streams.wheel import TimerWheel
from ..direct import Direct
from ..failures import no_answer
from ..observer import Observer
from ..subscription import Begin, send_stream
from .budgets import Budgets
from .following import Attempt
from .origin import Origin
from .sharing import Identity, begin_target, identify, share_target
from .sources import Sources
from .stream import SharedStream

_Key = tuple[str, str, Identity]
_OWN_FIELDS = ("Set-Cookie", "Content-Length", "Content-Encoding", "ETag", "Last-Modified", "Age", "Date")  # of a single response


class Shared:
    """Answer requests with streams that several clients follow.

    A stream counts for the client that opens it until another client joins. After its last request it lingers, if it has had an event, and
    gives way to other streams.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        wheel: TimerWheel,
        budgets: Budgets,
        direct: Direct,
        observer: Observer,
        routes: Routes,
    ) -> None:
        self._session = session
        self._wheel = wheel
        self._budgets = budgets
        self._direct = direct
        self._observer = observer
        self._routes = routes
        self._streams: dict[_Key, SharedStream] = {}
        self._keys: dict[SharedStream, list[_Key]] = {}
        self._origins: defaultdict[str, Origin] = defaultdict(Origin)

    def __repr__(self) -> str:
        return f"<Shared streams={len(self._streams)}>"

    def __len__(self) -> int:
        """Return the number of streams."""
        return len(self._keys)

    @property
    def streams(self) -> set[SharedStream]:
        """The streams that can be joined."""
        return set(self._keys)

    @property
    def history_blocks(self) -> int:
        """Number of event blocks in all histories."""
        fan_outs = [fan_out for stream in self.streams for fan_out in (stream.fan_out, *(each.fan_out for each in stream.catch_ups))]
        return sum(fan_out.history.end - fan_out.history.first for fan_out in fan_outs)

    def forget(self, deletion: Deletion) -> None:
        """Drop the histories of streams that a DELETE has made stale."""
        for stream in self.streams:
            if deletion.covers(stream.route.upstream + stream.target, stream.source.response_headers):
                stream.forget()

    def retire(self) -> None:
        """End streams whose route has changed or is gone: unused ones at once, and those whose upstream is lost.

        Their subscribers reconnect, to the new route. All other streams go on until their upstream is lost.
        """
        for stream in self.streams:
            if self._is_retired(stream.route):
                self._end_unused(stream)
                stream.end_if_retired()

    def _is_retired(self, route: Route) -> bool:
        return all(route.stream_kind != current.stream_kind for current in self._routes.current.routes)

    def drain(self) -> None:
        """Answer requests that wait for an upstream that is down."""
        for stream in self.streams:
            stream.drain()

    async def close(self) -> None:
        """End all streams."""
        streams = self.streams
        for stream in streams:
            stream.following.stop()
        for stream in streams:
            await stream.following.stopped()

    async def answer(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        """Return the response, sent except for its end. aiohttp cancels it when the client disconnects; the stream goes on."""
        identity = identify(request.method, request.headers, exchange.route)
        target = share_target(exchange.target, exchange.route)
        if identity is None or target is None:
            return await self._direct.answer(request, exchange)
        key = (exchange.route.stream_kind, target, identity)
        owner = exchange.owner
        stream = self._streams.get(key) or self._streams.get(_for_any_origin(key))
        if stream is None:
            if (refusal := self._budgets.refusal(owner)) is not None:
                return _refuse(request, exchange, refusal)
            stream = self._open(key, request, exchange)
        self._enter(stream, owner)
        try:
            id = read_last_event_id(request.headers, exchange.target)
            begin = await self._find_begin(stream, begin_target(exchange.target, target, id, request.headers), id, owner)
            if not isinstance(begin, Attempt | Refusal):
                fields = _response_fields(stream)
                rewrite_locations(fields, stream.route, request)
                if exchange.span is not None and stream.source.span is not None:
                    exchange.span.link(stream.source.span)
                del identity, key, target  # release memory: ten thousand requests may wait here
                sending = send_stream(request, exchange, fields, begin, self._wheel, self._budgets.histories)
                del begin, fields
                return await sending
        finally:
            self._leave(stream)
        if isinstance(begin, Refusal):
            return _refuse(request, exchange, begin)
        return await self._without_stream(request, exchange, begin)

    async def _find_begin(self, stream: SharedStream, target: str, id: str, owner: str) -> Begin | Attempt | Refusal:
        """Return how a subscriber with a request for `target` and the last event ID `id` begins, or why there is no stream for it."""
        opening = await stream.following.opened(stream.route)
        if opening.outcome != "open":
            return opening
        while True:
            first = stream.fan_out.history.first if stream.route.initial == "history" else None
            begun, begin = "live", partial(stream.join, stream.fan_out, first)
            if id and (found := stream.find(id)) is not None:
                begun, begin = "history", partial(stream.join, *found)
            elif id and (reason := stream.why_not(id)):
                begun, begin = "gap", partial(stream.join_behind_gap, id, reason)
            elif id or target != stream.target:
                catch_up = stream.catch_up(target, id, owner)
                if isinstance(catch_up, Refusal):
                    return catch_up
                opening = await catch_up.following.opened(stream.route)
                passing = opening.again_seconds <= stream.route.wait_seconds
                if opening.outcome == "finished" or (opening.outcome == "refused" and not id and not passing):
                    return opening
                if opening.outcome == "refused" and catch_up.following.source.state == "closed":  # otherwise it is retried
                    begun, begin = "gap", partial(stream.join_behind_gap, id, opening.reason)
                elif (cursor := catch_up.begin) is None:
                    continue  # too late to join: look again
                else:
                    begun, begin = "catch-up", partial(catch_up.fan_out.join, cursor=cursor)  # it brings the upstream's `retry`
            self._observer.subscribed(stream.route.path, begun)
            return begin

    async def _without_stream(self, request: web.BaseRequest, exchange: Exchange, opening: Attempt) -> web.StreamResponse:
        """Answer a request whose upstream sent no event stream."""
        if opening.outcome == "refused":
            return await self._direct.answer(request, exchange)  # a request of its own: the client gets the upstream's answer to it
        if opening.outcome == "finished":
            exchange.status = 204
            return web.Response(status=204, headers={"Cache-Control": "no-store", "Server": "gateway"})
        if opening.outcome in ("draining", "retired"):
            exchange.refuse(503, "draining" if opening.outcome == "draining" else "upstream-unreachable")
            return retry_later()
        reason = advise(opening.reason)
        told = f": {reason}" if reason.startswith("TLS: ") else ""  # other reasons name its address, which clients must not see
        return no_answer(exchange, reason, f" sent no event stream{told}", late=opening.outcome == "late")

    def _open(self, key: _Key, request: web.BaseRequest, exchange: Exchange) -> SharedStream:
        route = exchange.route
        sources = Sources(self._session, self._observer, route, key[2], request, exchange.span)
        stream = SharedStream(
            route,
            key[1],
            sources.open,
            self._wheel,
            self._budgets,
            exchange.owner,
            self._origins[str(URL(route.upstream, encoded=True).origin())],
            opened=partial(self._share_with_any_origin, key),
            done=self._forget,
            retired=partial(self._is_retired, route),
            observer=self._observer,
        )
        self._streams[key] = stream
        self._keys[stream] = [key]
        stream.following.start()
        return stream

    def _share_with_any_origin(self, key: _Key, stream: SharedStream) -> None:
        """Share a stream with pages of any origin, if its upstream allows any origin."""
        answered = stream.source.response_headers
        if answered.get("Access-Control-Allow-Origin") != "*" or "origin" in answered.get("Vary", "").lower():
            return
        if stream in self._keys and self._streams.setdefault(key := _for_any_origin(key), stream) is stream:
            self._keys[stream].append(key)

    def _enter(self, stream: SharedStream, owner: str) -> None:
        stream.following.enter()
        stream.following.used_by(owner)
        stream.following.place.reclaim = None
        stream.linger(None)

    def _leave(self, stream: SharedStream) -> None:
        """Make an unused stream linger. It ends at once if it is down, its route has changed, or it has no event and no ID."""
        stream.following.users -= 1
        if stream.following.users:
            return
        stream.unused()
        is_of_use = not stream.is_over and stream.following.down is None and (stream.has_begun or stream.following.last_event_id)
        if not is_of_use or self._is_retired(stream.route):
            self._end_unused(stream)
            return
        stream.following.place.reclaim = partial(self._end_unused, stream)
        stream.linger(asyncio.get_running_loop().call_later(stream.route.linger_seconds, self._end_unused, stream))

    def _end_unused(self, stream: SharedStream) -> bool:
        if stream.following.users:
            return False
        stream.linger(None)
        stream.following.stop()
        stream.following.place.close()
        self._forget(stream)
        return True

    def _forget(self, stream: SharedStream) -> None:
        for key in self._keys.pop(stream, ()):
            del self._streams[key]


def _refuse(request: web.BaseRequest, exchange: Exchange, refusal: Refusal) -> web.Response:
    """Return the answer to a request for which no stream may be opened. EventSource reconnects only if that looks like a stream."""
    exchange.refuse(refusal.status, refusal.reason)
    return retry_later() if names_event_stream(request.headers) else problem(refusal.status, refusal.detail, code=refusal.reason)


def _for_any_origin(key: _Key) -> _Key:
    """Return the key of a stream for pages of any origin. No request has this key, because no field name is empty."""
    path, target, identity = key
    return path, target, (*(field for field in identity if field[0] != "origin"), ("", "any origin"))


def _response_fields(stream: SharedStream) -> CIMultiDict[str]:
    fields = stream_fields(stream.source.response_headers, _OWN_FIELDS)
    apply_rules(fields, stream.route.response_headers)
    return fields
