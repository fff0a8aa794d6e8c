"""The description of the streams in `/docs`."""

from typing import Any

from eventstream import encode

from ..settings import Settings
from ..web.problems import describe_problems
from ..web.responses import EVENT_SCHEMA, EVENT_STREAM
from .pieces import Split, split_text

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
