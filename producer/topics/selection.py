"""Read the start and the end of a subscription from its request."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query

from ..log.event_ids import format_event_id
from ..log.event_log import EventLog
from ..web.last_event_id import read_last_event_id
from ..web.problems import Problem, describe_value, refuse_field
from .cursor import Start, start_after_id
from .moments import parse_moment
from .names import Patterns, TopicError
from .subscription import Selection

_LONGEST_ID = 200

_RESUME = """The id of the last event that you have: the stream continues right after it, at once or years later.

When events after it are gone, or the id is not of this log, an event of type `gap` says so, and all that is retained follows."""

_SINCE = """A time (`2026-03-01T12:00:00Z`) or a duration (`15m`, `1h30m`, `7d`): begin with the first event that was stored since."""


@dataclass(frozen=True, slots=True)
class SubscribeParameters:
    """The query and headers of a request for events."""

    last_event_id: str
    from_start: bool
    since: str
    limit: int | None
    follow: bool
    gap: bool


async def read_parameters(
    last_event_id: Annotated[str, Depends(read_last_event_id(_RESUME))],
    from_: Annotated[Literal["", "start"], Query(alias="from", description="`start`: all retained events.")] = "",
    since: Annotated[str, Query(description=_SINCE)] = "",
    limit: Annotated[int | None, Query(ge=1, description="End after this number of events.")] = None,
    follow: Annotated[bool, Query(description="`false`: end after the existing events.")] = True,
    gap: Annotated[bool, Query(description="`false`: no `gap` events, for clients that cannot handle them.")] = True,
) -> SubscribeParameters:
    """Read query and headers, as a FastAPI dependency. Raises Problem (422)."""
    if from_ and since:
        raise refuse_field("query", "since", "cannot be combined with from=start; send one of them", got=describe_value(since))
    return SubscribeParameters(last_event_id, from_ == "start", since, limit, follow, gap)


def read_patterns(texts: Sequence[str], place: str) -> Patterns:
    """Return the patterns from the `path` or the `query`. Raises Problem (422)."""
    try:
        if not texts:
            raise TopicError("is missing; name the topics, such as topic=orders.*&topic=news")
        return Patterns.parse(texts)
    except TopicError as error:
        raise refuse_topic(error, texts[0] if len(texts) == 1 else f"{len(texts)} patterns", place) from None


def refuse_topic(error: TopicError, text: str, place: str) -> Problem:
    """Return the answer to an invalid name or pattern."""
    return refuse_field(place, "topic", str(error), got=describe_value(text))


async def select(log: EventLog, patterns: Patterns, parameters: SubscribeParameters) -> Selection:
    """Return where the subscriber starts and ends. Raises Problem (422), LogError."""
    upto = None if parameters.follow else log.last
    return Selection(patterns, await _find_start(log, parameters), upto, parameters.limit, parameters.gap)


async def _find_start(log: EventLog, parameters: SubscribeParameters) -> Start:
    if parameters.last_event_id:
        return start_after_id(log, parameters.last_event_id[:_LONGEST_ID])
    if parameters.from_start:
        return Start(0, "")
    if not parameters.since:
        return Start(log.last, format_event_id(log.epoch, log.last))
    try:
        moment = parse_moment(parameters.since, time.time_ns() // 1_000_000)
    except (ValueError, OverflowError) as error:
        raise refuse_field("query", "since", str(error), got=describe_value(parameters.since)) from None
    before, first = await log.offset_before(moment), await log.first()
    # The log does not know the times of removed events, so before the first retained one the reader gets a gap, if any are missing.
    return Start(before if first and before >= first else 0, parameters.since)
