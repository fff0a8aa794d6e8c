"""The upstream requests of one shared stream."""

from collections.abc import Callable
from functools import partial

import aiohttp
from aiohttp import web

from eventstream.client import EventSource
from eventstream.reconnection import Reconnection
from service.traced_source import TracedSource
from service.tracing import TRACE_FIELDS, Span

from ...policy.routes import Route
from ...policy.target import url_of
from ..observer import Observer
from .sharing import Identity, request_fields


class Sources:
    """Makes the event sources of a stream: first that of the live stream, then those of its catch-ups.

    The first one belongs to the trace of the request that opens the stream. A catch-up belongs to no request in particular.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        observer: Observer,
        route: Route,
        identity: Identity,
        request: web.BaseRequest,
        span: Span | None,
    ) -> None:
        self._session = session
        self._observer = observer
        self._route = route
        self._identity = identity
        self._tracing = span.tracing if span is not None else None
        self._opener = span
        self._first_fields = {name: request.headers[name] for name in TRACE_FIELDS if name in request.headers}

    def __repr__(self) -> str:
        return f"<Sources {self._route.path}>"

    def open(self, target: str, last_event_id: str, reconnection: Reconnection, on_change: Callable[[EventSource], None]) -> TracedSource:
        """Return an event source, as `OpenSource` says."""
        route = self._route
        source = TracedSource(
            url_of(route.upstream, target),
            session=self._session,
            fields=partial(request_fields, self._identity, route),
            tracing=self._tracing,
            opener=self._opener,
            first_fields=self._first_fields,
            last_event_id=last_event_id,
            reconnection=reconnection,
            connect_timeout_seconds=route.connect_timeout_seconds,
            read_timeout_seconds=route.idle_timeout_seconds or None,
            tls=route.tls,
            cross_origin_redirects=False,  # an open redirect at the upstream would reach the admin port, with the route's secrets
            max_block_bytes=route.max_block_bytes,
            on_change=partial(self._note, on_change),
        )
        self._opener, self._first_fields = None, {}
        self._observer.began_reading(source, route.path)
        return source

    def _note(self, on_change: Callable[[EventSource], None], source: EventSource) -> None:
        if source.state == "open":
            self._observer.requested(self._route.path, "GET")
        elif source.state == "closed":
            self._observer.ended_reading(source)
        on_change(source)
