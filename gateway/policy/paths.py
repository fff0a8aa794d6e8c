"""Interpret paths as upstreams may: each decodes, merges slashes and resolves dot segments in its own way."""

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_to_bytes

from .target import readings

STREAMS_PATH = "/streams/"
"""Where a kept stream is found by its ID. Without one, other workers of the gateway ask there."""

_ODD = re.compile(r"[%\\;]|//|/\.")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_WRONG_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARAMETERS = re.compile(r";[^/]*")
_MOST_DECODED = 2
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def split_path(path: str) -> tuple[str, ...] | None:
    """Return the decoded segments of `path`, which begins with a slash, None if it is ambiguous.

    Ambiguous are `.` and `..`, empty segments before the last, encoded slashes, backslashes and controls, double encoding, and bytes
    that are not UTF-8.
    """
    if not path.isascii():
        return None
    segments = []
    for raw in path.split("/")[1:]:
        if _WRONG_ESCAPE.search(raw):
            return None
        try:
            segment = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
        if "/" in segment or "\\" in segment or _CONTROL.search(segment) or _ESCAPE.search(segment) or _is_dots(segment):
            return None
        segments.append(segment)
    return None if "" in segments[:-1] else tuple(segments)


def all_readings(path: str) -> Iterator[str]:
    """Yield the paths as which a server may read `path`: its `readings`, also decoded twice or without `;parameters`."""
    if not _ODD.search(path):
        return
    spellings = [path]
    while len(spellings) <= _MOST_DECODED and (decoded := unquote(spellings[-1], "latin-1")) != spellings[-1]:
        spellings.append(decoded)
    spellings += [each.replace("\\", "/") for each in spellings]  # a parameter ends there, for a server that takes it for a slash
    for spelling in dict.fromkeys(bare for each in spellings for bare in (each, _PARAMETERS.sub("", each))):
        yield spelling
        yield from readings(spelling)


def _is_dots(segment: str) -> bool:
    return segment.partition(";")[0] in (".", "..")
