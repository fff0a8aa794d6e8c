"""Whether a client takes event streams (RFC 9110 section 12.5.1)."""

import re
from collections.abc import Iterator

from multidict import CIMultiDict, CIMultiDictProxy, istr

_ACCEPT = istr("Accept")
_MEDIA_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*"?)+')  # an unclosed quote reaches to the end, or each would be tried anew
_REFUSED = re.compile(r";[ \t]*q[ \t]*=[ \t]*0(?:\.0*)?[ \t]*(?:;|\Z)", re.IGNORECASE)
_EVENT_STREAM = "text/event-stream"
_MATCHING = (_EVENT_STREAM, "text/*", "*/*")  # the most specific range that is there decides


def accepts_event_stream(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> bool:
    """Whether a client takes an event stream: it names the type or a range that includes it, or says nothing."""
    accepted = dict(_media_ranges(headers))
    return not accepted or next((accepted[media_range] for media_range in _MATCHING if media_range in accepted), False)


def names_event_stream(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> bool:
    """Whether a client asks for an event stream by name, as `EventSource` does."""
    return dict(_media_ranges(headers)).get(_EVENT_STREAM, False)


def _media_ranges(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> Iterator[tuple[str, bool]]:
    """Yield each media range without its parameters, and whether it is accepted. One with other parameters than `q` counts as the whole."""
    for field in headers.getall(_ACCEPT, ()):
        for item in _MEDIA_RANGE.findall(field):
            media_range = item.partition(";")[0].strip().lower()
            if media_range:
                yield media_range, _REFUSED.search(item) is None
