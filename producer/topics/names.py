"""Names of topics, and patterns that match them.

A name is one or more segments between dots. A segment has letters, digits, `-`, `_`, `~`, and `%XX` for each byte of any other
character in UTF-8. In a pattern, the segment `*` matches any one segment, and `>` at the end one or more.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from service.topic_names import LONGEST_NAME, SEGMENT, WILDCARDS, canonical_segment

MOST_SEGMENTS = 32
MOST_PATTERNS = 64

_PLAIN = re.compile(r"[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*")
_RESERVED = {"%2E": "a dot", "%2A": "`*`", "%3E": "`>`", "%2F": "a slash"}
"""Escapes that would change the meaning of a name if they were decoded once too often."""


class TopicError(ValueError):
    """An invalid name or pattern; the message says what is allowed."""


def parse_topic(text: str) -> str:
    """Return the canonical spelling of a topic's name, in which `%XX` has capitals and stands only where necessary. Raises TopicError."""
    if len(text) <= LONGEST_NAME and _PLAIN.fullmatch(text) and text.count(".") < MOST_SEGMENTS:
        return text  # nearly all names
    segments = _segments(text)
    if not WILDCARDS.keys().isdisjoint(segments):
        raise TopicError("is a pattern, not a topic; name the topic, without `*` and `>`")
    return ".".join(map(_canonical, segments))


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns of a subscriber: all topics that at least one of them matches."""

    texts: tuple[str, ...]
    """The patterns in canonical spelling, sorted, without duplicates: equal sets are equal."""

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "Patterns":
        """Parse patterns as clients write them. Raises TopicError, which names the pattern when there are several."""
        texts = list(texts)
        if len(texts) > MOST_PATTERNS:
            raise TopicError(f"has {len(texts)} patterns, allowed are {MOST_PATTERNS}; a pattern with `*` or `>` may replace several")
        found = set()
        for text in texts:
            try:
                found.add(_parse_pattern(text))
            except TopicError as error:
                raise error if len(texts) == 1 else TopicError(f"{text[:100]!r} {error}") from None
        return cls(tuple(sorted(found)))

    @property
    def topics(self) -> tuple[str, ...]:
        """The patterns that are names."""
        return tuple(text for text in self.texts if not _has_wildcard(text))

    @property
    def match_all(self) -> bool:
        """Whether the patterns match every topic."""
        return ">" in self.texts

    def matcher(self) -> re.Pattern[str]:
        """Return an expression that fully matches the names of exactly these topics."""
        return re.compile("|".join(map(_expression, self.texts)))


def _parse_pattern(text: str) -> str:
    segments = _segments(text)
    canonical = [WILDCARDS.get(segment) or _canonical(segment) for segment in segments]
    if ">" in canonical[:-1]:
        raise TopicError("has `>` before the end; it matches all the rest, so it must be the last segment")
    return ".".join(canonical)


def _segments(text: str) -> list[str]:
    if not text:
        raise TopicError("is empty")
    if len(text) > LONGEST_NAME:
        raise TopicError(f"has {len(text)} characters, allowed are {LONGEST_NAME}")
    segments = text.split(".")
    if len(segments) > MOST_SEGMENTS:
        raise TopicError(f"has {len(segments)} segments, allowed are {MOST_SEGMENTS}")
    for segment in segments:
        if segment not in WILDCARDS and not SEGMENT.fullmatch(segment):
            wrong = "an empty segment" if not segment else f"{segment[:50]!r}"
            raise TopicError(f"has {wrong}; segments, between dots, are of letters, digits, `-`, `_`, `~` and %XX")
    return segments


def _canonical(segment: str) -> str:
    try:
        canonical = canonical_segment(segment)
    except ValueError as error:
        raise TopicError(str(error)) from None
    for escape, meaning in _RESERVED.items():
        if escape in canonical:
            raise TopicError(f"has {escape}: {meaning} cannot be part of a name")
    return canonical


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or ">" in pattern


def _expression(pattern: str) -> str:
    parts = {"*": r"[^.]+", ">": r".+"}
    return r"\.".join(parts.get(segment) or re.escape(segment) for segment in pattern.split("."))
