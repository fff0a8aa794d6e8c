"""The parts of streams of resumable routes, for tests."""

import re

from tests.kit.downstream import Answer
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, chunk

HEAD = EVENT_STREAM_HEAD
END = LAST_CHUNK

_STAMP = re.compile(rb"(?<=[\r\n])id: [0-9a-f]{32}-[0-9]+\n(?=[\r\n])")


def event(number: int) -> bytes:
    """Return the block of one event, as the upstream sends it."""
    return b"data: %d\n\n" % number


def events(first: int, last: int) -> bytes:
    """Return the blocks of events from `first` to `last`."""
    return b"".join(event(number) for number in range(first, last + 1))


def sent(first: int, last: int) -> bytes:
    """Return the same as HTTP chunks, one each."""
    return b"".join(chunk(event(number)) for number in range(first, last + 1))


def stamped(stream: str, number: int, block: bytes) -> bytes:
    """Return the block of an event, whose lines end with LF, as the gateway keeps it."""
    return b"%bid: %b-%d\n\n" % (block.removesuffix(b"\n"), stream.encode(), number)


def unstamped(body: bytes) -> bytes:
    """Return what the upstream sent: `body` without the `id:` lines that the gateway adds at the end of blocks."""
    return _STAMP.sub(b"", body)


def stream_of(answer: Answer) -> str:
    """Return the id of an answer's stream."""
    value = answer.head.value("Stream-Id")
    assert value is not None
    return value


def last_id(body: bytes) -> str:
    """Return the last event ID after `body`."""
    return body.rpartition(b"id: ")[2].partition(b"\n")[0].decode()
