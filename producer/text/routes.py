"""The streams: one text, two ways to send it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import Response

from eventstream import encode

from ..settings import Settings
from ..web.drain import Drain
from ..web.meters import Meters
from ..web.problems import describe_problems
from ..web.responses import EVENT_SCHEMA, EVENT_STREAM, STREAM_HEADERS, PlainEventStream, respond_by_sse_starlette
from .parameters import Parameters, read_event_number, read_parameters
from .streams import Delivery, Split, TextStream, split_text

API_DESCRIPTION = """Text, streamed piece by piece as `text/event-stream` (HTML standard, section 9.2).

`GET /` and `POST /sse` send by sse-starlette, `GET /plain` and `POST /plain` by Starlette's `StreamingResponse`; their events are equal.
Each event has `event: message`, `retry` and `data`, and with `ids=true` an `id`. The first goes out at once. When events are further
apart than the heartbeat, comments go out between them: `:` and a blank line, or with `ids=true` `:` alone. A stream ends after its last
event, or early, after a `retry` line, when the producer stops.

Errors are `application/problem+json` (RFC 9457). This page loads its scripts from a content delivery network; `/openapi.json` has the
same content without them."""


TOO_LARGE = describe_problems({413: "The body has too many bytes; `got` and `allowed` say how many."})
"""The OpenAPI text of the answer that only routes with a body have."""


def describe_streams(settings: Settings) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI text of the answers that all stream routes have in common."""
    pieces = split_text(settings.text, Split.GRAPHEME)[:2]
    example = "".join(encode(piece, type="message", retry=settings.retry_ms).decode() for piece in pieces)
    return {
        200: {
            "description": "One event per piece of text, sent while the stream is made.",
            "content": {EVENT_STREAM: {"itemSchema": EVENT_SCHEMA, "example": example}},
        },
        204: {"description": "Your Last-Event-ID is that of the last event: nothing is left, and an `EventSource` stops."},
        **describe_problems(
            {
                400: "Last-Event-ID is not an id of this stream.",
                422: "A parameter or the body is not allowed; `errors` names each field.",
                503: "The producer is stopping.",
            }
        ),
    }


_Sender = Callable[[AsyncGenerator[bytes, None]], Response]
_Endpoint = Callable[..., Awaitable[Response]]


def stream_routes(settings: Settings, meters: Meters, drain: Drain) -> APIRouter:
    """Return `GET /` and `POST /sse` by sse-starlette, `GET /plain` and `POST /plain` by StreamingResponse; their events are equal."""
    router = APIRouter(tags=["streams"], responses=describe_streams(settings))
    opener = StreamOpener(Delivery(meters, drain, settings.heartbeat_seconds, settings.retry_ms), settings.retry_ms)
    by_sse_starlette = partial(respond_by_sse_starlette, drain_seconds=settings.drain_seconds)

    def add(method: str, path: str, summary: str, endpoint: _Endpoint) -> None:
        responses = TOO_LARGE if method == "POST" else None
        router.add_api_route(path, endpoint, methods=[method], summary=summary, response_class=Response, responses=responses)
        if method == "GET":
            router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, response_class=Response)

    add("GET", "/", "The demo text, sent by sse-starlette", _for_text(settings, opener, by_sse_starlette))
    add("POST", "/sse", "Your message, sent by sse-starlette", _for_message(settings, opener, by_sse_starlette))
    add("GET", "/plain", "The demo text, sent by StreamingResponse", _for_text(settings, opener, PlainEventStream))
    add("POST", "/plain", "Your message, sent by StreamingResponse", _for_message(settings, opener, PlainEventStream))
    return router


class StreamOpener:
    """Turns a request for a text into its stream, or into the reason for refusing it."""

    def __init__(self, delivery: Delivery, retry_ms: int) -> None:
        self._delivery = delivery
        self._retry_ms = retry_ms

    def open(self, request: Request, text: str, parameters: Parameters, sender: _Sender) -> Response:
        """Return the response; 204 when the client has all events. Raises Problem: 400 for an unknown Last-Event-ID, 503 during a drain."""
        self._delivery.drain.refuse()
        stream = TextStream(split_text(text, parameters.split), parameters.repeat, self._retry_ms, parameters.ids)
        after = read_event_number(parameters.last_event_id, stream.last) if parameters.ids else 0
        if after == stream.last:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
        if request.method == "HEAD":
            return Response(headers=STREAM_HEADERS, media_type=EVENT_STREAM)
        route = f"{request.method} {request.scope['path']}"
        shown_id = stream.ids or bool(parameters.last_event_id)
        interval = parameters.interval_seconds
        return sender(self._delivery.send(stream.blocks(after), shown_id=shown_id, interval_seconds=interval, route=route))


def _for_text(settings: Settings, opener: StreamOpener, sender: _Sender) -> _Endpoint:
    async def stream_text(request: Request, parameters: Annotated[Parameters, Depends(read_parameters(settings))]) -> Response:
        return opener.open(request, settings.text, parameters, sender)

    return stream_text


def _for_message(settings: Settings, opener: StreamOpener, sender: _Sender) -> _Endpoint:
    async def stream_message(
        request: Request,
        message: Annotated[str, Body(embed=True, min_length=1, max_length=settings.max_message_chars, description="The text to stream.")],
        parameters: Annotated[Parameters, Depends(read_parameters(settings))],
    ) -> Response:
        return opener.open(request, message, parameters, sender)

    return stream_message
