"""What a DELETE that an upstream has done makes stale."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

# A string of a structured field (RFC 9651 section 3.3.3). One without an end matches too, or each of its quotes would be tried.
_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*+)("?)')


@dataclass(frozen=True, slots=True)
class Deletion:
    """Makes stale what is at its URL or below (after RFC 9111 section 4.4), and what is of the groups that the answer names (RFC 9875).

    Only DELETE does: a POST to the URL of a stream adds to it.
    """

    url: str
    """At the upstream."""
    groups: tuple[str, ...] = ()

    @classmethod
    def done(cls, url: str, answered: Mapping[str, str]) -> Self:
        """Takes the header fields of the upstream's answer."""
        return cls(url, _strings(answered.get("Cache-Group-Invalidation", "")))

    def covers(self, url: str, answered: Mapping[str, str]) -> bool:
        """Tells whether it makes stale what the upstream has at `url`, and answered with these header fields."""
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
