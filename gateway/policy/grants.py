"""Grants: what the holder of a credential may read and publish."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl

from service.topic_names import LONGEST_NAME, SEGMENT, WILDCARDS, canonical_segment

from .paths import split_path

_READING = ("GET", "HEAD")
_MOST_TOPICS = 64
_ANY, _REST = "*", ">"
_AMBIGUOUS = ("%25", "%2E", "%2F", "%2A", "%3E", "%5C")  # a second decoding would yield another name

Topic = tuple[str, ...]
"""Segments of a topic's name or pattern, in canonical spelling."""


class GrantError(ValueError):
    """Grants are invalid. The message says what is allowed, and repeats nothing of them."""


def parse_topic(text: str) -> Topic | None:
    """Return the segments of a topic's name or pattern; characters other than letters, digits and `-_~` must be percent-encoded.

    Return None if it is malformed or ambiguous.
    """
    if not text or len(text) > LONGEST_NAME:
        return None
    segments: list[str] = []
    for raw in text.split("."):
        segment = WILDCARDS.get(raw) or _canonical(raw)
        if segment is None or (segments and segments[-1] == _REST):
            return None
        segments.append(segment)
    return tuple(segments)


def _canonical(raw: str) -> str | None:
    if not SEGMENT.fullmatch(raw):
        return None
    try:
        canonical = canonical_segment(raw)
    except ValueError:
        return None
    return None if any(escape in canonical for escape in _AMBIGUOUS) else canonical


def covers(granted: Topic, asked: Topic) -> bool:
    """Return whether `granted` matches every topic that `asked` matches. `*` is one segment, `>` one or more."""
    for index, segment in enumerate(granted):
        if segment == _REST:
            return len(asked) > index
        if index >= len(asked) or asked[index] == _REST:
            return False
        if segment not in (_ANY, asked[index]):
            return False
    return len(granted) == len(asked)


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern for paths. In `/a/*/b`, `*` is any one segment; `/a/**` matches all paths below `/a/`."""

    segments: tuple[str, ...]
    below: bool
    """Whether one or more further segments must follow."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse a pattern. Return None if it is malformed."""
        segments = split_path(text)
        if segments is None or any("*" in segment and segment not in ("*", "**") for segment in segments) or "**" in segments[:-1]:
            return None
        below = segments[-1] == "**"
        return cls(segments[:-1] if below else segments, below)

    def matches(self, path: tuple[str, ...]) -> bool:
        """Return whether the pattern matches a path with these decoded segments."""
        count = len(self.segments)
        if len(path) <= count if self.below else len(path) != count:
            return False
        return all(segment in ("*", given) for segment, given in zip(self.segments, path, strict=False))


@dataclass(frozen=True, slots=True)
class Grant:
    """Paths and topics that may be read, or published."""

    paths: tuple[PathPattern, ...] = ()
    topics: tuple[Topic, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[object]) -> Self:
        """Parse entries: paths, which begin with a slash, and names or patterns of topics. Raises GrantError if one is malformed."""
        paths, topics = [], []
        for number, entry in enumerate(entries, 1):
            if isinstance(entry, str) and entry.startswith("/"):
                path = PathPattern.parse(entry)
                if path is None:
                    raise GrantError(f"entry {number} is not a valid path: `*` must be a whole segment, `**` the last one; no dot segments")
                paths.append(path)
            else:
                topic = parse_topic(entry) if isinstance(entry, str) else None
                if topic is None:
                    raise GrantError(f"entry {number} must be a path such as /llm/** or a topic or pattern such as orders.>")
                topics.append(topic)
        return cls(tuple(paths), tuple(topics))

    def allows(self, target: str) -> bool:
        """Return whether the grant covers a request for `target`, path and query as received. Ambiguous targets are not covered."""
        path, _, query = target.partition("?")
        segments = split_path(path)
        if segments is None:
            return False
        if any(pattern.matches(segments) for pattern in self.paths):
            return True
        asked = _asked_topics(path.split("/")[1:], segments, query)
        return bool(asked) and all(topic is not None and any(covers(granted, topic) for granted in self.topics) for topic in asked)


def _asked_topics(raw: Sequence[str], segments: Sequence[str], query: str) -> list[Topic | None]:
    """Return the topics of a request to the producer: `/topics/{topic}/events`, an event below it, or `/events?topic=…`."""
    match tuple(segments):
        case ("topics", _, "events"):
            return [parse_topic(raw[1])]
        case ("topics", _, "events", event) if event:
            return [parse_topic(raw[1])]
        case ("events",):
            asked = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "topic"]
            return [parse_topic(topic) for topic in asked] if len(asked) <= _MOST_TOPICS else []
    return []


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of a credential's holder. GET and HEAD read, every other method publishes."""

    read: Grant = Grant()
    publish: Grant = Grant()

    @classmethod
    def parse(cls, claim: Any) -> Self:
        """Parse `{"read": […], "publish": […]}`, both optional. Raises GrantError if it is malformed."""
        if not isinstance(claim, dict):
            raise GrantError('must be an object such as {"read": ["orders.>"], "publish": ["/llm/**"]}')
        grants = []
        for name in ("read", "publish"):
            entries = claim.get(name, [])
            if not isinstance(entries, list | tuple):
                raise GrantError(f"{name} must be an array of paths and topic patterns")
            try:
                grants.append(Grant.parse(entries))
            except GrantError as error:
                raise GrantError(f"{name}, {error}") from None
        return cls(*grants)

    def allows(self, method: str, target: str) -> bool:
        """Return whether a request is granted."""
        return (self.read if method in _READING else self.publish).allows(target)
