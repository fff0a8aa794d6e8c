"""The description of topics in `/docs`: arguments for the routes."""

from typing import Any

from eventstream import encode

from ..web.problems import describe_problem
from ..web.responses import EVENT_SCHEMA, EVENT_STREAM
from .event_bodies import LONGEST_RETRY_MS, LONGEST_TYPE
from .names import LONGEST_NAME, MOST_PATTERNS, MOST_SEGMENTS

_ID = "k3v9x0q2m7-42"

_STOPPING = {503: describe_problem("The producer is stopping, or the event log failed.", title="Service Unavailable", status=503)}
_NOWHERE = {404: describe_problem("There is no such path: the topic contains a slash or a line end.", title="Not Found", status=404)}
_WRONG = {
    422: describe_problem(
        "The topic, a parameter, a header or the body is not allowed; `errors` says where. Only the events in `stored` were stored.",
        title="Unprocessable Content",
        status=422,
    )
}
_KEYS = {
    401: describe_problem("The bearer key is missing, and the producer requires one.", title="Unauthorized", status=401),
    403: describe_problem("The bearer key is not one of the producer's.", title="Forbidden", status=403),
}

_AUTHORIZATION = {
    "name": "Authorization",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`Bearer KEY` with one of `PRODUCER_PUBLISH_KEYS`, if there are any.",
}

_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Makes the request idempotent: when it is repeated with the same body, the first answer is returned with status 200.",
}

_SEGMENT = "([A-Za-z0-9_~-]|%[0-9A-Fa-f]{2})+"

_TOPIC = {
    "name": "topic",
    "in": "path",
    "required": True,
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_NAME,
        "pattern": rf"^{_SEGMENT}(\.{_SEGMENT}){{0,{MOST_SEGMENTS - 1}}}$",
    },
    "description": f"Up to {MOST_SEGMENTS} segments between dots, of letters, digits, `-`, `_`, `~` and `%XX`.",
}

_PATTERN = _TOPIC | {
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_NAME,
        "pattern": rf"^(({_SEGMENT}|\*)\.){{0,{MOST_SEGMENTS - 1}}}({_SEGMENT}|\*|>)$",
    },
    "description": "A topic, or a pattern: `*` matches any one segment, `>` at the end one or more (`orders.*`, `orders.>`).",
}

_EVENT_SCHEMA = {
    "type": "object",
    "required": ["data"],
    "additionalProperties": False,
    "properties": {
        "data": {"description": "A string is sent unchanged, any other value as JSON."},
        "type": {"type": "string", "minLength": 1, "maxLength": LONGEST_TYPE, "description": "No line end, no NUL, not `gap`."},
        "retry": {"type": "integer", "minimum": 0, "maximum": LONGEST_RETRY_MS, "description": "Reconnection time in milliseconds."},
    },
}

_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"oneOf": [_EVENT_SCHEMA, {"type": "array", "minItems": 1, "items": _EVENT_SCHEMA}]},
            "examples": {
                "one event": {"value": {"type": "order", "data": {"number": 7}}},
                "several, all or none": {"value": [{"data": "first"}, {"data": "second"}]},
            },
        },
        "text/plain": {"schema": {"type": "string"}, "example": "the data of one event"},
        "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"data": "first"}\n{"data": "second"}\n'},
    },
}

_PUBLISHED = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The id, for one event."},
                "count": {"type": "integer", "description": "The number, for several events."},
                "first_id": {"type": "string"},
                "last_id": {"type": "string"},
                "ids": {"type": "array", "items": {"type": "string"}, "description": "If all were stored in one batch."},
            },
        },
        "example": {"id": _ID},
    }
}

PUBLISH: dict[str, Any] = {
    "summary": "Publish one event, or several",
    "description": (
        "The answer is sent when the events are durable, as set by `PRODUCER_LOG_SYNC`. A JSON array is stored all or none. Lines of "
        "JSON (`application/x-ndjson`) are stored as they arrive, in batches of `PRODUCER_MAX_BATCH_EVENTS`: a body of any length. "
        "When a line is invalid, the batches before its own are stored, and the answer has their ids."
    ),
    "status_code": 201,
    "responses": {
        200: {"description": "The same was published before with this Idempotency-Key; nothing was stored.", "content": _PUBLISHED},
        201: {
            "description": "The events are stored.",
            "content": _PUBLISHED,
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The URL of the event, for one event."}},
        },
        413: describe_problem(
            "An event, a batch or the body is too large; see `got` and `allowed`.", title="Content Too Large", status=413
        ),
        415: describe_problem("The media type of the body is not accepted.", title="Unsupported Media Type", status=415),
        507: describe_problem("There is no space left; nothing was stored.", title="Insufficient Storage", status=507),
        **_NOWHERE,
        **_WRONG,
        **_KEYS,
        **_STOPPING,
    },
    "openapi_extra": {"parameters": [_TOPIC, _IDEMPOTENCY_KEY, _AUTHORIZATION], "requestBody": _BODY},
}

DROP: dict[str, Any] = {
    "summary": "Drop a topic with all its events",
    "description": "Subscribers that had not received all of its events get a `gap` event.",
    "responses": {
        200: {
            "description": "The number of dropped events.",
            "content": {"application/json": {"example": {"topic": "orders.eu", "dropped": 42}}},
        },
        404: describe_problem("There is no such topic.", title="Not Found", status=404),
        507: describe_problem("There is no space left to record that.", title="Insufficient Storage", status=507),
        **_WRONG,
        **_KEYS,
        **_STOPPING,
    },
    "openapi_extra": {"parameters": [_TOPIC, _AUTHORIZATION]},
}

_STREAM = {
    200: {
        "description": (
            "First a `retry` line, then the events, and comment lines (`:`) in between. An event of type `gap` reports missing "
            "events: its data is JSON with `asked`, the id after which events are missing, `first_retained`, the id of the event "
            "that follows, and `reason`: `not-retained`, `unknown-epoch`, `malformed-id` or `beyond-end`. With `gone_through`, more may "
            "be missing later, up to this id, because one topic has lost more than another."
        ),
        "content": {
            EVENT_STREAM: {
                "itemSchema": EVENT_SCHEMA,
                "example": "retry: 3000\n" + encode('{"number":7}', type="order", id=_ID).decode(),
            }
        },
    },
    204: {"description": "With `follow=false`: no event comes after your Last-Event-ID, and an `EventSource` stops."},
    **_WRONG,
    **_STOPPING,
}

SUBSCRIBE: dict[str, Any] = {
    "summary": "Subscribe to a topic, or to all that match a pattern",
    "description": "Starts at Last-Event-ID, `last_event_id`, `from` or `since`, in this order of precedence; by default with new events.",
    "responses": _STREAM | _NOWHERE,
    "openapi_extra": {"parameters": [_PATTERN]},
}

SUBSCRIBE_SEVERAL: dict[str, Any] = {
    "summary": "Subscribe to several topics or patterns at once",
    "description": f"Like `/topics/{{topic}}/events`, for up to {MOST_PATTERNS} patterns on one connection, in one order.",
    "responses": _STREAM,
}

EVENT: dict[str, Any] = {
    "summary": "Look at one event",
    "responses": {
        200: {
            "description": "The event.",
            "content": {
                "application/json": {"example": {"id": _ID, "topic": "orders.eu", "type": "order", "data": '{"number":7}', "retry": None}}
            },
        },
        404: describe_problem("The topic never had an event of this id.", title="Not Found", status=404),
        410: describe_problem("The event is no longer retained.", title="Gone", status=410),
        **_WRONG,
        **_STOPPING,
    },
    "openapi_extra": {"parameters": [_TOPIC]},
}

LIST: dict[str, Any] = {
    "summary": "List the topics that have events",
    "responses": {
        200: {
            "description": "A page of topics; `next` is the URL of the next page, or null.",
            "content": {
                "application/json": {
                    "example": {
                        "topics": [{"topic": "orders.eu", "count": 1, "first_id": _ID, "last_id": _ID, "bytes": 61, "subscribers": 2}],
                        "next": "/topics?after=orders.eu&limit=1",
                    }
                }
            },
        },
        **_WRONG,
        **_STOPPING,
    },
}
