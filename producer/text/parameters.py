"""The parameters of a request for a stream."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Query

from ..settings import LONGEST_INTERVAL_MS, Settings
from ..web.last_event_id import read_last_event_id
from ..web.problems import Problem
from .streams import Split

_MOST_REPEATS = 10_000
_EVENT_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to stream a text."""

    interval_seconds: float
    repeat: int
    split: Split
    ids: bool
    last_event_id: str


def read_parameters(settings: Settings) -> Callable[..., Awaitable[Parameters]]:
    """Return the FastAPI dependency that reads query and headers, with the defaults of `settings`."""

    async def parameters(
        last_event_id: Annotated[str, Depends(read_last_event_id(_RESUME))],
        interval_ms: Annotated[
            int, Query(ge=0, le=LONGEST_INTERVAL_MS, description="Milliseconds between events; 0: as fast as you read.")
        ] = settings.interval_ms,
        repeat: Annotated[int, Query(ge=1, le=_MOST_REPEATS, description="How often the text is streamed.")] = 1,
        split: Annotated[Split, Query(description=_SPLIT)] = Split.GRAPHEME,
        ids: Annotated[bool, Query(description="Number the events `id: 1`, `id: 2`, … so that a client can resume.")] = False,
    ) -> Parameters:
        return Parameters(interval_ms / 1000, repeat, split, ids, last_event_id)

    return parameters


def read_event_number(last_event_id: str, last: int) -> int:
    """Return the number of the last event that the client has, 0 when it has none.

    Raises Problem (400) when it is not an id of a stream whose last event has the number `last`. Starting over would silently repeat
    events, and a 204 would silently lose them; a 400 makes an EventSource fail for good, with an error that it reports.
    """
    if not last_event_id:
        return 0
    if _EVENT_NUMBER.fullmatch(last_event_id) and int(last_event_id) <= last:
        return int(last_event_id)
    raise Problem(
        HTTPStatus.BAD_REQUEST,
        f"Last-Event-ID {last_event_id[:100]!r} is not an id of this stream, whose ids go from 1 to {last}; "
        "resume with the same parameters and text as before, or omit Last-Event-ID to start over",
        got=last_event_id[:100],
        allowed=f"1 to {last}",
    )


_SPLIT = """Where the text is cut into events.

- `grapheme`: into user-perceived characters; an emoji with its modifiers stays one event. The data of all events, joined, are the text.
- `word`: after blanks; a word keeps the blanks that follow it (the first also those before it), so that joined they are the text.
- `line`: at line ends (LF, CRLF, CR), which are left out: joined by LF they are the text.

In data, CRLF and CR arrive as LF: the format cannot carry a CR."""

_RESUME = """The id of the last event that you have; the stream continues right after it. Only with `ids=true`, else ignored.

Works across restarts of the producer, because the events depend on nothing but text and parameters. When no event is left the answer
is 204, which stops an `EventSource`. An id of another stream is refused with 400, which stops an `EventSource` with an error."""
