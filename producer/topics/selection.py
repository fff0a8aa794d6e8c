"""Read the start and the end of a subscription from its request, and the moments in it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Depends, Query

from ..log.event_log import EventLog, format_event_id
from ..web.last_event_id import read_last_event_id
from ..web.problems import Problem, describe_value, refuse_field
from .cursor import Start, start_after_id
from .names import Patterns, TopicError
from .subscription import Selection

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?")
_BLANK_BEFORE_OFFSET = re.compile(r" (?=[0-9]{2}:?[0-9]{2}$)")
_UNITS = ("days", "hours", "minutes", "seconds", "milliseconds")


_LONGEST_ID = 200

_RESUME = """The id of the last event that you have: the stream continues right after it, at once or years later.

When events after it are gone, or the id is not of this log, an event of type `gap` says so, and all that is retained follows."""

_SINCE = """A time (`2026-03-01T12:00:00Z`) or a duration (`15m`, `1h30m`, `7d`): begin with the first event that was stored since."""


def parse_moment(text: str, now_ms: int) -> int:
    """Return the Unix time in milliseconds of `text`: a time such as 2026-03-01T12:00:00Z, in UTC when it has no offset, or a
    duration before now such as 15m, 1h30m, 7d or 500ms.

    A `+` that a query turned into a blank is accepted. Raises ValueError, which says what is allowed.
    """
    duration = _DURATION.fullmatch(text)
    if text and duration:
        parts = {unit: int(part) for unit, part in zip(_UNITS, duration.groups(), strict=True) if part}
        return max(0, now_ms - timedelta(**parts) // timedelta(milliseconds=1))
    try:
        moment = datetime.fromisoformat(_BLANK_BEFORE_OFFSET.sub("+", text) if "T" in text else text)
    except ValueError:
        raise ValueError("must be a time such as 2026-03-01T12:00:00Z or a duration such as 15m, 1h30m or 7d") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


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
