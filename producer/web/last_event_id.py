"""The last event ID of a reconnecting client, in a header or in the query."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Header, Query, Request

from service.last_event_id import FIELD, choose_last_event_id

_OTHER_NAMES = "Also accepted: `lastEventId`, `lastEventID` and `Last-Event-ID`, which polyfills and clients of Mercure send."
_HEADER = "Like `last_event_id`, but takes precedence: an `EventSource` sends it on reconnection. Of several fields the last one counts."


def read_last_event_id(description: str) -> Callable[..., Awaitable[str]]:
    """Return the FastAPI dependency that reads the last event ID of a request, empty if it has none; `description` is for `/docs`."""

    async def last_event_id(
        request: Request,
        last_event_id: Annotated[str, Query(description=f"{description}\n\n{_OTHER_NAMES}")] = "",
        last_event_id_header: Annotated[str, Header(alias=FIELD, description=_HEADER)] = "",
    ) -> str:
        return choose_last_event_id(request.headers.getlist(FIELD), request.scope["query_string"].decode("latin-1"))

    return last_event_id
