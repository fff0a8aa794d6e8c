"""Event streams for tests, and an independent implementation of where their blocks end."""

from collections.abc import Iterator

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_LINES = ["event: a", "data: 七", "", ": c", "id: 1", "data", "", "data:x", "data: y", ""]

THREE_EVENTS = {
    "LF": "\n".join([*_LINES, ""]).encode(),
    "CRLF": "\r\n".join([*_LINES, ""]).encode(),
    "CR": "\r".join([*_LINES, ""]).encode(),
    "mixed": "event: a\rdata: 七\n\r\n: c\r\nid: 1\ndata\r\rdata:x\r\ndata: y\n\n".encode(),
}
"""The same three events with each line end; `mixed` ends its blocks with LF CRLF, CR CR and LF LF."""


def whole_blocks(stream: bytes) -> bytes:
    """Return `stream` up to its last blank line, byte by byte as in the standard; a lone CR at the end closes its line."""
    end = line = at = 0
    while at < len(stream):
        if stream[at] not in b"\r\n":
            at += 1
            continue
        width = 2 if stream[at : at + 2] == b"\r\n" else 1
        if at == line:
            end = at + width
        at += width
        line = at
    return stream[:end]


def numbered_blocks(first: int, count: int, size: int = 256) -> bytes:
    """Return `count` blocks of `size` bytes, each with its number."""
    return b"".join(b"data: %012d %s\n\n" % (number, b"." * (size - 21)) for number in range(first, first + count))


def dechunked(wire: bytes) -> bytes:
    """Return the body bytes in a prefix of chunked coding."""
    return b"".join(_chunk_bodies(wire))


def _chunk_bodies(wire: bytes) -> Iterator[bytes]:
    while b"\r\n" in wire:
        size, _, wire = wire.partition(b"\r\n")
        yield wire[: int(size, 16)]
        wire = wire[int(size, 16) + 2 :]
