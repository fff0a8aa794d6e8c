"""The description of topics in `/docs`: arguments for the routes, and their answers."""

from typing import Any

from pydantic import BaseModel

from eventstream import encode
from service.topic_names import LONGEST_NAME

from ..web.problems import describe_problems
from ..web.responses import EVENT_SCHEMA, EVENT_STREAM
from .event_bodies import LONGEST_RETRY_MS, LONGEST_TYPE
from .names import MOST_PATTERNS, MOST_SEGMENTS

_ID = "k3v9x0q2m7-42"

_UNREADABLE = {
    422: "The topic, a parameter, a header or the body is not allowed; `errors` says where. Only the events in `stored` were stored.",
    503: "The producer is stopping, or the event log failed.",
}
_NOWHERE = {404: "There is no such path: the topic contains a slash or a line end."}
_KEYS = {401: "The bearer key is missing, and the producer requires one.", 403: "The bearer key is not one of the producer's."}


def _parameter(name: str, place: str, description: str, **schema: object) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"type": "string", **schema}, "description": description}


_AUTHORIZATION = _parameter("Authorization", "header", "`Bearer KEY` with one of `PRODUCER_PUBLISH_KEYS`, if there are any.")
_IDEMPOTENCY_KEY = _parameter(
    "Idempotency-Key",
    "header",
    "Makes the request idempotent: when it is repeated with the same body, the first answer is returned with status 200.",
    minLength=1,
    maxLength=255,
)
_SEGMENT = "([A-Za-z0-9_~-]|%[0-9A-Fa-f]{2})+"
_TOPIC = _parameter(
    "topic",
    "path",
    f"Up to {MOST_SEGMENTS} segments between dots, of letters, digits, `-`, `_`, `~` and `%XX`.",
    minLength=1,
    maxLength=LONGEST_NAME,
    pattern=rf"^{_SEGMENT}(\.{_SEGMENT}){{0,{MOST_SEGMENTS - 1}}}$",
)
_PATTERN = _parameter(
    "topic",
    "path",
    "A topic, or a pattern: `*` matches any one segment, `>` at the end one or more (`orders.*`, `orders.>`).",
    minLength=1,
    maxLength=LONGEST_NAME,
    pattern=rf"^(({_SEGMENT}|\*)\.){{0,{MOST_SEGMENTS - 1}}}({_SEGMENT}|\*|>)$",
)

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


class PublishedEvent(BaseModel):
    id: str


class PublishedEvents(BaseModel, use_attribute_docstrings=True):
    count: int
    first_id: str
    last_id: str
    ids: list[str] = []
    """Missing unless all were stored in one batch."""


class DroppedTopic(BaseModel):
    topic: str
    dropped: int


class StoredEvent(BaseModel):
    id: str
    topic: str
    type: str | None
    data: str
    retry: int | None


class ListedTopic(BaseModel):
    topic: str
    count: int
    first_id: str | None
    last_id: str | None
    bytes: int
    subscribers: int


class TopicPage(BaseModel, use_attribute_docstrings=True):
    topics: list[ListedTopic]
    next: str | None
    """The URL of the next page."""


PUBLISH: dict[str, Any] = {
    "summary": "Publish one event, or several",
    "description": (
        "The answer is sent when the events are durable, as set by `PRODUCER_LOG_SYNC`. A JSON array is stored all or none. Lines of "
        "JSON (`application/x-ndjson`) are stored as they arrive, in batches of `PRODUCER_MAX_BATCH_EVENTS`: a body of any length. "
        "When a line is invalid, the batches before its own are stored, and the answer has their ids."
    ),
    "status_code": 201,
    "responses": {
        200: {
            "description": "The same was published before with this Idempotency-Key; nothing was stored.",
            "model": PublishedEvent | PublishedEvents,
        },
        201: {
            "description": "The events are stored.",
            "model": PublishedEvent | PublishedEvents,
            "headers": {"Location": {"schema": {"type": "string"}, "description": "The URL of the event, for one event."}},
        },
        **describe_problems(
            {
                413: "An event, a batch or the body is too large; see `got` and `allowed`.",
                415: "The media type of the body is not accepted.",
                507: "There is no space left; nothing was stored.",
                **_NOWHERE,
                **_KEYS,
                **_UNREADABLE,
            }
        ),
    },
    "openapi_extra": {"parameters": [_TOPIC, _IDEMPOTENCY_KEY, _AUTHORIZATION], "requestBody": _BODY},
}

DROP: dict[str, Any] = {
    "summary": "Drop a topic with all its events",
    "description": "Subscribers that had not received all of its events get a `gap` event.",
    "response_description": "The number of dropped events.",
    "responses": describe_problems({404: "There is no such topic.", 507: "There is no space left to record that.", **_KEYS, **_UNREADABLE}),
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
    **describe_problems(_UNREADABLE),
}

SUBSCRIBE: dict[str, Any] = {
    "summary": "Subscribe to a topic, or to all that match a pattern",
    "description": "Starts at Last-Event-ID, `last_event_id`, `from` or `since`, in this order of precedence; by default with new events.",
    "responses": _STREAM | describe_problems(_NOWHERE),
    "openapi_extra": {"parameters": [_PATTERN]},
}

SUBSCRIBE_SEVERAL: dict[str, Any] = {
    "summary": "Subscribe to several topics or patterns at once",
    "description": f"Like `/topics/{{topic}}/events`, for up to {MOST_PATTERNS} patterns on one connection, in one order.",
    "responses": _STREAM,
}

EVENT: dict[str, Any] = {
    "summary": "Look at one event",
    "response_description": "The event.",
    "responses": describe_problems(
        {404: "The topic never had an event of this id.", 410: "The event is no longer retained.", **_UNREADABLE}
    ),
    "openapi_extra": {"parameters": [_TOPIC]},
}

LIST: dict[str, Any] = {
    "summary": "List the topics that have events",
    "response_description": "A page of topics.",
    "responses": describe_problems(_UNREADABLE),
}
