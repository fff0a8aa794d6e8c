"""The last event ID of a reconnecting client, in a header or in the query."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Query, Request

PARAMETERS = ("last_event_id", "lastEventId", "lastEventID", "Last-Event-ID")
"""The query parameters for it, the first one first: our own, the polyfills', and Mercure's current and former ones."""

_FIELD = "Last-Event-ID"
_OTHER_NAMES = "Also accepted: `lastEventId`, `lastEventID` and `Last-Event-ID`, which polyfills and clients of Mercure send."
_HEADER = "Like `last_event_id`, but takes precedence: an `EventSource` sends it on reconnection. Of several fields the last one counts."


def read_last_event_id(description: str) -> Callable[..., Awaitable[str]]:
    """Return the FastAPI dependency that reads the last event ID of a request, empty if it has none; `description` is for `/docs`.

    Some clients add a field on each reconnection, so the last one is the newest. The query counts only without such a field: an
    `EventSource` reconnects with the header and with the query of its first request.
    """

    async def last_event_id(
        request: Request,
        last_event_id: Annotated[str, Query(description=f"{description}\n\n{_OTHER_NAMES}")] = "",
        last_event_id_header: Annotated[str, Header(alias=_FIELD, description=_HEADER)] = "",
    ) -> str:
        fields = request.headers.getlist(_FIELD)
        if fields and fields[-1]:
            return fields[-1]
        values = {name: value for name, value in request.query_params.multi_items() if value}  # the last non-empty one of several
        return next((values[name] for name in PARAMETERS if name in values), "")

    return last_event_id
