"""Moments in requests: an ISO time, or a duration before now."""

import re
from datetime import UTC, datetime, timedelta

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?")
_BLANK_BEFORE_OFFSET = re.compile(r" (?=[0-9]{2}:?[0-9]{2}$)")
_UNITS = ("days", "hours", "minutes", "seconds", "milliseconds")


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
