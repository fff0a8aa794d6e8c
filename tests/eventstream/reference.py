"""A naive implementation of the format to compare the fast code with, and streams cut into chunks in every way."""

import re
from collections.abc import Iterator

from hypothesis import strategies as st

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LINE_ENDS = [b"\n", b"\r\n", b"\r"]
LINE_END_NAMES = ["LF", "CRLF", "CR"]


def naive_events(stream: bytes) -> list[tuple[str, str, str]]:
    """Return type, data and last event ID of each event, line by line as in HTML standard 9.2.6."""
    events, data, event_type, block_id, last_event_id = [], "", "", None, ""
    for line in re.split("\r\n|\n|\r", stream.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "replace"))[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            last_event_id = last_event_id if block_id is None else block_id
            events += [(event_type or "message", data[:-1], last_event_id)] if data else []
            data, event_type, block_id = "", "", None
        data += value + "\n" if name == "data" else ""
        event_type = value if name == "event" else event_type
        block_id = value if name == "id" and "\0" not in value else block_id
    return events


def naive_blocks(stream: bytes, limit: int) -> tuple[bytes, bool]:
    """Return the whole blocks, joined, and whether a block exceeded the limit, byte by byte."""
    given, block, line, previous = b"", b"", b"", b""
    for byte in map(bytes, zip(stream.removeprefix(BYTE_ORDER_MARK))):
        completes_crlf = previous == b"\r" and byte == b"\n"
        previous = byte
        if not block and byte in b"\r\n":
            given += byte
            continue
        block += byte
        if len(block) > limit:
            return given, True
        if byte in b"\r\n" and not completes_crlf:
            if not line:
                given, block = given + block, b""
            line = b""
        elif byte not in b"\r\n":
            line += byte
    return given, False


def cut_in_every_way(stream: bytes) -> Iterator[list[bytes]]:
    """Yield the stream whole, byte by byte, and in two chunks at every place."""
    yield [stream]
    yield [stream[at : at + 1] for at in range(len(stream))]
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    """Return the stream in chunks that end at `places`, each taken modulo the length; some may be empty."""
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[begin:end] for begin, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)
_WORDS = ["data", "data:", "data: x", "data:  七夕", "id", "id: 1", "id: \0", "event: e", "retry: 5", ":", ": note", "unknown: x", "x"]
_PIECES = [word.encode() for word in _WORDS] + [BYTE_ORDER_MARK, b"\xe4\xb8", b"\xff", b" ", b"\0"]
STREAMS = st.one_of(
    st.lists(st.sampled_from(_PIECES + LINE_ENDS * 6), max_size=40).map(b"".join),
    st.lists(st.sampled_from([b"\n", b"\r", b"d"]), max_size=30).map(b"".join),
    st.binary(max_size=200),
).flatmap(lambda stream: st.sampled_from([stream, BYTE_ORDER_MARK + stream]))
"""Streams in which the rules for line ends, byte order marks and fields meet often."""
