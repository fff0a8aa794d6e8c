"""Names of topics, and patterns that match them.

A name is one or more segments between dots. A segment has letters, digits, `-`, `_`, `~`, and `%XX` for each byte of any other
character in UTF-8. In a pattern, the segment `*` matches any one segment, and `>` at the end one or more.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

LONGEST_NAME = 255
MOST_SEGMENTS = 32
MOST_PATTERNS = 64

_SEGMENT = re.compile(r"(?:[A-Za-z0-9_~-]|%[0-9A-Fa-f]{2})+")
_PLAIN = re.compile(r"[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_WILDCARDS = {"*": "*", "%2A": "*", "%2a": "*", ">": ">", "%3E": ">", "%3e": ">"}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~-")
_RESERVED = {"%2E": "a dot", "%2A": "`*`", "%3E": "`>`", "%2F": "a slash"}
"""Escapes that would change the meaning of a name if they were decoded once too often."""


class TopicError(ValueError):
    """An invalid name or pattern; the message says what is allowed."""


def parse_topic(text: str) -> str:
    """Return the canonical spelling of a topic's name, in which `%XX` has capitals and stands only where necessary. Raises TopicError."""
    if len(text) <= LONGEST_NAME and _PLAIN.fullmatch(text) and text.count(".") < MOST_SEGMENTS:
        return text  # nearly all names
    segments = _segments(text)
    if not _WILDCARDS.keys().isdisjoint(segments):
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
    canonical = [_WILDCARDS.get(segment) or _canonical(segment) for segment in segments]
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
        if segment not in _WILDCARDS and not _SEGMENT.fullmatch(segment):
            wrong = "an empty segment" if not segment else f"{segment[:50]!r}"
            raise TopicError(f"has {wrong}; segments, between dots, are of letters, digits, `-`, `_`, `~` and %XX")
    return segments


def _canonical(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        decoded = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise TopicError(f"has {segment[:50]!r}, which is not UTF-8: {error.reason}") from None
    if any(unicodedata.category(character) == "Cc" for character in decoded):
        raise TopicError(f"has a control character in {segment[:50]!r}")
    canonical = _ESCAPE.sub(_canonical_escape, segment)
    for escape, meaning in _RESERVED.items():
        if escape in canonical:
            raise TopicError(f"has {escape}: {meaning} cannot be part of a name")
    return canonical


def _canonical_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or ">" in pattern


def _expression(pattern: str) -> str:
    parts = {"*": r"[^.]+", ">": r".+"}
    return r"\.".join(parts.get(segment) or re.escape(segment) for segment in pattern.split("."))
