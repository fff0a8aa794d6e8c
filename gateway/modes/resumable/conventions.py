"""Answer the requests with which client libraries resume and stop kept answers: by an ID on the route's own path, or by name."""

import re
from dataclasses import replace

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from eventstream import Parser

from ...access.exchange import Exchange
from ...http.connection import comes_from_peer
from ...http.incoming import Incoming
from ...policy.last_event_id import read_last_event_id
from ...policy.refusal import Refusal
from ...policy.resume import Resume
from ...streams.history import History
from ...streams.stamping import read_stamp
from ..direct import Direct
from ..observer import Observer
from .answers import AnyStream, gone, no_content, nothing_more, other_credentials, refuse
from .asked import Asked, find_running
from .cancelled import response_object
from .first_block import repeated_id
from .heads import credentials_of, head_of, private_key
from .kept_stream import KeptStream
from .kept_streams import KeptStreams
from .naming import JsonPointer, parameter, valid_name
from .opening import Opening
from .peers import Peers
from .positions import cursor_after_position
from .resumption import Resumption
from .store import COMPLETE, STOPPED, StreamHead

_EVENTS_WITH_START = 5  # it is the first one, or follows data of the application's
_TYPE, _MESSAGE_ID = JsonPointer(("type",)), JsonPointer(("messageId",))


class Conventions:
    """Answer requests on a resumable route's own path that are meant for a kept answer, and leave all others to the upstream."""

    def __init__(self, direct: Direct, observer: Observer, peers: Peers, resumption: Resumption) -> None:
        self._direct = direct
        self._observer = observer
        self._peers = peers
        self._streams: KeptStreams = resumption.streams
        self._resumption = resumption

    async def answer(self, request: Incoming, exchange: Exchange) -> web.StreamResponse | None:
        """Return the response, sent except for its end, or None if the request is meant for the upstream. Raises StoreError."""
        path, _, query = exchange.target.partition("?")
        templates = exchange.route.templates
        if request.method == "GET":
            name = templates.path.match(path) if templates is not None and templates.path is not None else None
            answer = await self._resume_by_id(request, exchange)
            if answer is not None or name is None:
                return answer
            return await self._resume_by_name(request, exchange, name) if _is_meant(exchange.route.resume, query) else None
        if templates is not None and templates.stop is not None and request.method == templates.stop_method:
            name = templates.stop.match(path)
            return await self._stop(request, exchange, name) if name is not None else None
        return None

    async def _resume_by_id(self, request: Incoming, exchange: Exchange) -> web.StreamResponse | None:
        """Resume after an ID of the gateway's, or after one of the upstream's that a running answer has shown."""
        last_event_id = read_last_event_id(request.headers, exchange.target)
        if not last_event_id:
            return None
        if (stamp := read_stamp(last_event_id)) is not None:
            if not comes_from_peer(request) and (other := self._peers.worker_of_stream(stamp[0])) is not None:
                return await self._peers.hand_off(other, request, exchange)
            found = await self._streams.look_up(stamp[0])
            if isinstance(found, str):
                return gone(exchange, found)
            if found is not None and found.head.route != exchange.route.path:  # the rules of its own route hold
                return await self._resumption.answer_about(request, exchange, found)
            if found is not None:
                return await self._resume(request, exchange, found, last_event_id)
        asked = Asked("running", head_of(request, exchange, ""), last_event_id)
        running = find_running(self._streams, asked)
        if (other := await self._newer_elsewhere(request, asked, running.head if running is not None else None)) is not None:
            return await self._peers.hand_off(other, request, exchange)
        return await self._resume(request, exchange, running, last_event_id) if running is not None else None

    async def _resume(self, request: Incoming, exchange: Exchange, stream: AnyStream, last_event_id: str) -> web.StreamResponse:
        """Answer with the events of a stream after an ID."""
        if stream.head.credentials not in (b"", credentials_of(request, exchange.route, exchange.target)):
            return other_credentials(exchange, stream)
        found = await self._streams.find(stream.head.id)
        if not isinstance(found, KeptStream):
            return gone(exchange, found)
        resume = found.route.resume
        cursor = found.cursor_after(last_event_id)
        if resume is not None and resume.preset == "mcp" and cursor is not None and found.is_over_after(cursor):
            return nothing_more(exchange, found)  # after a 204 its clients hang
        self._observer.resumed(exchange.route.path, "id", _replayed(found, cursor or 0))
        first = repeated_id(request, found, last_event_id)
        return await self._resumption.follow_from(request, exchange, found, last_event_id, first)

    async def _resume_by_name(self, request: Incoming, exchange: Exchange, name: str) -> web.StreamResponse | None:
        """Answer with the newest answer of a name."""
        route, resume = exchange.route, exchange.route.resume
        assert resume is not None
        stream, other = await self._find(request, exchange, name)
        if other is not None:
            return await self._peers.hand_off(other, request, exchange)
        if stream is None or isinstance(stream, Opening):
            return self._missing(exchange, resume)
        found = await self._streams.find(stream.head.id)
        if isinstance(found, Refusal):
            return refuse(exchange, *found)
        if not isinstance(found, KeptStream):
            return self._missing(exchange, resume)
        if found.state == COMPLETE and (
            resume.when_over == "no-content" or (resume.when_over == "replay-if-message-id" and not _has_message_id(found.fan_out.history))
        ):
            return no_content(exchange, found)
        last_event_id = read_last_event_id(request.headers, exchange.target)
        cursor = found.cursor_after(last_event_id)
        if cursor is None:
            return refuse(exchange, 400, "unknown-event", f"{last_event_id[:100]!r} is not an event ID of this answer", found)
        position = _position(request, exchange.target, resume)
        if position is not None and not last_event_id:
            cursor = await cursor_after_position(found.fan_out.history, resume.event_pointer, position)
        if (last_event_id or position is not None) and found.is_over_after(cursor):
            exchange.status = 200
            return web.Response(headers=CIMultiDict(found.head.fields))  # clients of a name take a 204 for an error
        self._observer.resumed(route.path, resume.preset or "name", _replayed(found, cursor))
        return await self._resumption.follow(request, exchange, found, cursor)

    async def _stop(self, request: Incoming, exchange: Exchange, name: str) -> web.StreamResponse | None:
        """Stop the newest answer of a name."""
        resume = exchange.route.resume
        assert resume is not None
        found, other = await self._find(request, exchange, name, waits=False)
        if other is not None:
            return await self._peers.hand_off(other, request, exchange)
        if found is None:
            return self._missing(exchange, resume)
        if isinstance(found, Opening | KeptStream) and found.is_running:
            found.stop(reason="a client stopped it")
            self._observer.stopped(exchange.route.path)
        if resume.stop_passes_on:
            return await self._direct.answer(request, exchange)
        if resume.preset != "openai-responses":
            return no_content(exchange)
        stream = await self._streams.find(found.head.id)
        body = await response_object(name, stream if isinstance(stream, KeptStream) else None)
        exchange.status = 200
        return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})

    async def _find(
        self, request: Incoming, exchange: Exchange, name: str, *, waits: bool = True
    ) -> tuple[Opening | AnyStream | None, int | None]:
        """Return the newest answer of a name, or the number of the other worker that has it. None: there is none, or it was stopped.

        With `waits` the head of the answer is waited for.
        """
        route = exchange.route
        head = head_of(request, exchange, "")
        head = replace(head, name=private_key(valid_name(name), head.credentials, route, exchange.client))
        if not head.name:
            return None, None
        found = await self._streams.find_named(head)
        other = await self._newer_elsewhere(request, Asked("name", head), found.head if found is not None else None)
        if other is not None:
            return None, other
        if not isinstance(found, Opening):
            return (found, None) if found is not None and found.state != STOPPED else (None, None)
        if found.stream is None and (not waits or not found.is_running):
            return (found if found.is_running else None), None
        try:
            answer = await found.wait()
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return None, None
        return (answer, None) if isinstance(answer, KeptStream) and answer.state != STOPPED else (None, None)

    async def _newer_elsewhere(self, request: Incoming, asked: Asked, own: StreamHead | None) -> int | None:
        """Return the other worker with a newer answer than `own`, or None."""
        if comes_from_peer(request):
            return None
        return await self._peers.find_worker(asked, newer_than=own.opened_at if own is not None else 0.0)

    def _missing(self, exchange: Exchange, resume: Resume) -> web.StreamResponse | None:
        """Return the answer for a name without an answer. Names of others look the same."""
        if resume.when_missing == "pass":
            return None
        return no_content(exchange) if resume.when_missing == "no-content" else gone(exchange, None)


def _is_meant(resume: Resume | None, query: str) -> bool:
    """Whether a GET on the path of a named answer asks for that, and not for something else of the upstream's."""
    if resume is not None and resume.preset == "openai-responses":
        return parameter(query, "stream") == "true"  # otherwise it wants the response object
    if resume is not None and resume.preset == "langgraph":  # another mode, or another end of the run
        return not parameter(query, "stream_mode") and parameter(query, "cancel_on_disconnect") in (None, "0", "false", "False")
    return True


def _position(request: Incoming, target: str, resume: Resume) -> int | None:
    """Return the position up to which a client has the answer, or None."""
    source = resume.position_source
    if source is None:
        return None
    value = request.headers.get(source.key) if source.kind == "header" else parameter(target.partition("?")[2], source.key)
    return int(value) if value is not None and re.fullmatch("[0-9]{1,15}", value) else None


def _has_message_id(history: History) -> bool:
    """Whether the event of type `start` has a `messageId`, by which the AI SDK replaces a message instead of repeating it."""
    first = history.copy(0, min(history.end, _EVENTS_WITH_START))[0] if history.end else b""
    events = [event.data.encode() for event in Parser().feed(first)]
    return any(_TYPE.read(event) == "start" and _MESSAGE_ID.read(event) for event in events)


def _replayed(stream: KeptStream, cursor: int) -> int:
    history = stream.fan_out.history
    return history.end_bytes - history.position(cursor)
