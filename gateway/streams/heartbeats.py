"""Choose the heartbeat of a connection by what its client has received so far.

A client that splits its stream at blank lines takes a bare comment line for the beginning of the next block, and may lose that event. So a
heartbeat is a block of its own. After the first `id` it is a bare line: OpenAI's SDK takes every block after an ID for an event, and fails
on one without data. Between lines that were sent ahead and their block it is a bare line too.
"""

import re
from enum import IntEnum

from eventstream import HEARTBEAT, HEARTBEAT_BLOCK

from .stamping import read_ids

_HEARTBEATS = re.compile(rb"(?:%b)*+" % HEARTBEAT)


class Shown(IntEnum):
    """What a connection has sent to its client."""

    BLOCKS = 0
    """Whole blocks without an ID, or nothing."""
    LINES = 1
    """The same, then lines of a block whose rest is not sent yet."""
    ID = 2
    """An ID, here or on an earlier connection of the client."""

    @property
    def heartbeat(self) -> bytes:
        """The bytes of a heartbeat."""
        return HEARTBEAT_BLOCK if self is Shown.BLOCKS else HEARTBEAT

    def then(self, data: bytes, *, whole: bool = True) -> "Shown":
        """Return the state after `data` too, which is `whole` blocks or lines of one."""
        if self is Shown.ID or shows_id(data):
            return Shown.ID
        return Shown.BLOCKS if whole else Shown.LINES


def shows_id(data: bytes) -> bool:
    """Whether one of these lines sets a last event ID that is not empty.

    Called for each read until it is true: `rfind` takes half as long as `in`, and the search for CR almost no time.
    """
    if data.startswith(b"id:") or data.rfind(b"\nid:") >= 0 or (b"\r" in data and data.rfind(b"\rid:") >= 0):
        return any(read_ids(data))
    return False


def without_heartbeats(block: bytes) -> bytes:
    """Return a block without the heartbeats at its beginning. There may be millions."""
    match = _HEARTBEATS.match(block)
    assert match is not None  # it matches the empty string
    return block[match.end() :]
