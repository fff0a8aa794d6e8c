"""The ids of published events: `<epoch>-<offset>`, one total order over all topics of a log."""

import re

_ID = re.compile(r"([A-Za-z0-9]{1,64})-(0|[1-9][0-9]{0,17})")


def format_event_id(epoch: str, offset: int) -> str:
    """Gives the id of the event at `offset`. With the offset 0 it stands before the first."""
    return f"{epoch}-{offset}"


def parse_event_id(text: str) -> tuple[str, int] | None:
    """Gives epoch and offset, None when `text` is no event id."""
    found = _ID.fullmatch(text)
    return (found[1], int(found[2])) if found else None
