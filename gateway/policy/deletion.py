"""Invalidation: the streams that a successful DELETE makes stale."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

# A string of a structured field (RFC 9651 section 3.3.3). An unclosed one matches too, so that matching takes linear time.
_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*+)("?)')


@dataclass(frozen=True, slots=True)
class Deletion:
    """A DELETE invalidates what is at its URL or below (after RFC 9111 section 4.4), and the groups that its answer names (RFC 9875).

    Other methods do not: a POST to the URL of a stream adds to it.
    """

    url: str
    """URL at the upstream."""
    groups: tuple[str, ...] = ()

    @classmethod
    def done(cls, url: str, answered: Mapping[str, str]) -> Self:
        """Return the deletion of `url`, given the header fields of the upstream's answer."""
        return cls(url, _strings(answered.get("Cache-Group-Invalidation", "")))

    def covers(self, url: str, answered: Mapping[str, str]) -> bool:
        """Return whether it invalidates the upstream's resource at `url`, whose answer had these header fields."""
        if _origin(url) != _origin(self.url):
            return False
        mine, other = _path(self.url), _path(url)
        if other == mine or other.startswith(f"{mine}/"):
            return True
        return not set(self.groups).isdisjoint(_strings(answered.get("Cache-Groups", "")))


def _strings(field: str) -> tuple[str, ...]:
    return tuple(re.sub(r"\\(.)", r"\1", string) for string, closed in _STRING.findall(field) if closed)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _path(url: str) -> str:
    return unquote(urlsplit(url).path).rstrip("/")
