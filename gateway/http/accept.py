"""Parse `Accept` for event streams (RFC 9110 section 12.5.1)."""

import re
from collections.abc import Iterator

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, istr

_ACCEPT = istr("Accept")
_MEDIA_RANGE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*"?)+')  # an unclosed quote extends to the end, so that matching takes linear time
_REFUSED = re.compile(r";[ \t]*q[ \t]*=[ \t]*0(?:\.0*)?[ \t]*(?:;|\Z)", re.IGNORECASE)
_EVENT_STREAM = "text/event-stream"
_MATCHING = (_EVENT_STREAM, "text/*", "*/*")  # the most specific range present decides


def accepts_event_stream(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> bool:
    """Return whether a client accepts an event stream: it names the type, or a range that includes it, or no type."""
    accepted = dict(_media_ranges(headers))
    return not accepted or next((accepted[media_range] for media_range in _MATCHING if media_range in accepted), False)


def names_event_stream(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> bool:
    """Return whether a client names the event stream type, as `EventSource` does."""
    return dict(_media_ranges(headers)).get(_EVENT_STREAM, False)


def _media_ranges(headers: CIMultiDict[str] | CIMultiDictProxy[str]) -> Iterator[tuple[str, bool]]:
    """Yield each media range without its parameters, and whether it is accepted. Parameters other than `q` are ignored."""
    for field in headers.getall(_ACCEPT, ()):
        for item in _MEDIA_RANGE.findall(field):
            media_range = item.partition(";")[0].strip().lower()
            if media_range:
                yield media_range, _REFUSED.search(item) is None


def takes_retry_ahead(request: web.BaseRequest) -> bool:
    """Whether the client may get a `retry` line ahead of its first block.

    Clients that look for `data:` at the beginning of a block would miss that event. They send no `Accept` for event streams.
    """
    return names_event_stream(request.headers) or (request.method == "GET" and accepts_event_stream(request.headers))
