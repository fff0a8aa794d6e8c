"""The ids of published events: `<epoch>-<offset>`, one total order over all topics of a log."""

import re

_ID = re.compile(r"([A-Za-z0-9]{1,64})-(0|[1-9][0-9]{0,17})")


def format_event_id(epoch: str, offset: int) -> str:
    """Return the id of the event at `offset`. The offset 0 is before the first event."""
    return f"{epoch}-{offset}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Return epoch and offset, None when `text` is not an event id."""
    found = _ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None
