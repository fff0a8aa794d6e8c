"""The last event ID of a request, in its header or, for polyfills and Mercure's clients, in its query."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

FIELD = "Last-Event-ID"
PARAMETERS = ("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID")
"""Query parameters for it, in order of precedence: our own, the polyfills', and Mercure's current and former ones."""


def choose_last_event_id(fields: Sequence[str], query: str) -> str:
    """Return the last event ID, empty if there is none. `fields` are the values of the header fields `Last-Event-ID`.

    The last of several counts, because some clients add a field on each reconnection. The query counts only without such a field: an
    `EventSource` reconnects with the header and with the query of its first request.
    """
    if fields and fields[-1]:
        return fields[-1]
    values = dict(parse_qsl(query))  # without empty ones
    return next((values[name] for name in PARAMETERS if name in values), "")
