"""The spelling of topics' names and patterns, the same for the producer's topics and for the gateway's grants of them."""

import re
import unicodedata
from urllib.parse import unquote_to_bytes

SEGMENT = re.compile(r"(?:[A-Za-z0-9_~-]|%[0-9A-Fa-f]{2})+")
"""A segment of a name: letters, digits, `-`, `_`, `~`, and `%XX` for each byte of any other character in UTF-8."""
WILDCARDS = {"*": "*", "%2A": "*", "%2a": "*", ">": ">", "%3E": ">", "%3e": ">"}
"""The segments of patterns that are no names, in each spelling."""
LONGEST_NAME = 255

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_~-")


def canonical_segment(segment: str) -> str:
    """Return a segment with `%XX` in capitals, and only where it is necessary. Raises ValueError for other text and controls."""
    if "%" not in segment:
        return segment
    try:
        decoded = unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"has {segment[:50]!r}, which is not UTF-8: {error.reason}") from None
    if any(unicodedata.category(character) == "Cc" for character in decoded):
        raise ValueError(f"has a control character in {segment[:50]!r}")
    return _ESCAPE.sub(_canonical_escape, segment)


def _canonical_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if character in _UNRESERVED else escape[0].upper()
