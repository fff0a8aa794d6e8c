"""Find the last event ID of a request, in its header or, for polyfills and Mercure's clients, in its query."""

from urllib.parse import parse_qsl, unquote_plus

from multidict import CIMultiDict, CIMultiDictProxy, istr

PARAMETERS = ("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID")
"""Query parameters for it, in order of precedence: the producer's, the polyfills', and Mercure's current and former ones."""

_FIELD = istr("Last-Event-ID")


def read_last_event_id(headers: CIMultiDict[str] | CIMultiDictProxy[str], target: str) -> str:
    """Return the last event ID of a request, empty if it has none.

    The last of several `Last-Event-ID` fields counts, because some clients add a field on each reconnection. The query counts only
    without such a field: an `EventSource` reconnects with the header and with the query of its first request.
    """
    fields = headers.getall(_FIELD, ())
    if fields and fields[-1]:
        return fields[-1]
    values = dict(parse_qsl(target.partition("?")[2]))
    return next((values[name] for name in PARAMETERS if name in values), "")


def without_last_event_id(target: str) -> str:
    """Return `target` without the last event ID in its query, otherwise unchanged."""
    path, mark, query = target.partition("?")
    kept = [parameter for parameter in query.split("&") if unquote_plus(parameter.partition("=")[0]) not in PARAMETERS]
    return f"{path}{mark}{'&'.join(kept)}" if kept else path
