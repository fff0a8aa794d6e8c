"""Paths that name a topic. They are read undecoded: once decoded, a `%2F` in a name looks like a slash."""

from fastapi import Request

from ..web.problems import Problem, describe_value, nothing_at
from .names import TopicError, parse_topic
from .selection import refuse_topic

TOPICS_PATH = "/topics"
TOPIC_PATH = "/topics/{topic}"
EVENTS_PATH = "/topics/{topic:path}/events"
EVENT_PATH = "/topics/{topic:path}/events/{event_id}"
SEVERAL_TOPICS = '"topics"'
"""The group (RFC 9875) of streams whose path does not name their one topic. Caches invalidate it when a topic is dropped."""


def read_segment(request: Request, route: str) -> str:
    """Return the topic segment of a path that matched `route`. Raises Problem (404) for a path with more segments than `route`."""
    segments: list[str] = request.scope["raw_path"].decode("ascii").split("/")
    if len(segments) != route.count("/") + 1:
        raise Problem(404, nothing_at(describe_value(request.scope["path"])))
    return segments[2]


def read_topic(request: Request, route: str = EVENTS_PATH) -> str:
    """Return the topic that the path names. Raises Problem (422, 404)."""
    segment = read_segment(request, route)
    try:
        return parse_topic(segment)
    except TopicError as error:
        raise refuse_topic(error, segment, "path") from None
