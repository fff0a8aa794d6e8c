"""Which heartbeat a connection may get depends on what it has shown its client.

A client that splits its stream at blank lines takes a bare comment line for the beginning of the next block, and may lose that event. So a
heartbeat is a block of its own. Once a connection has shown an `id` it is a bare line: OpenAI's SDK takes every block behind an ID for an
event, and fails on one without data. Between lines that were sent ahead and their block it is a line as well.
"""

import re
from enum import IntEnum

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK

from .stamping import read_ids

_HEARTBEATS = re.compile(rb"(?:%b)*+" % HEARTBEAT)


class Shown(IntEnum):
    """What a connection has shown its client."""

    BLOCKS = 0
    """Whole blocks without an ID, or nothing."""
    LINES = 1
    """The same, and lines of a block whose rest is still to come."""
    ID = 2
    """An ID, which its client may have brought from an earlier connection."""

    @property
    def heartbeat(self) -> bytes:
        """What keeps the connection awake."""
        return HEARTBEAT_BLOCK if self is Shown.BLOCKS else HEARTBEAT

    def then(self, data: bytes, *, whole: bool = True) -> "Shown":
        """Return what it has shown behind `data` too: `whole` blocks, or lines of one."""
        if self is Shown.ID or shows_id(data):
            return Shown.ID
        return Shown.BLOCKS if whole else Shown.LINES


def shows_id(data: bytes) -> bool:
    """Whether one of these lines sets the last event ID to something.

    Runs with each read until it is so: `rfind` takes half as long as `in`, and the search for CR next to nothing.
    """
    if data.startswith(b"id:") or data.rfind(b"\nid:") >= 0 or (b"\r" in data and data.rfind(b"\rid:") >= 0):
        return any(read_ids(data))
    return False


def without_heartbeats(block: bytes) -> bytes:
    """Return a block without the heartbeats at its beginning, of which it may have millions."""
    match = _HEARTBEATS.match(block)
    assert match is not None  # nothing at least
    return block[match.end() :]
