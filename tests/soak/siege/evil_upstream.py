"""The upstream that attackers own or know how to use: what it answers depends on the last segment of the path."""

import asyncio
import functools
import sys
import zlib
from collections.abc import Callable

import brotli

from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Act, Asked, Flood, Script, Silence, chunk

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOMB_BYTES = 128 * 2**20
LINES = 1_000_000
BLOCKS = 105_000
LARGE_BYTES, MEGABYTE = 4 * 2**20, 2**20
PERIOD_SECONDS = 0.5
EVENT = b"id: 1\ndata: 1\n\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"


def evil_play(elsewhere: str) -> Callable[[Asked], Script]:
    """Return the scripts of all answers. Redirects lead to the URL `elsewhere`."""

    def play(asked: Asked) -> Script:
        asked.body = b""  # of up to 16 MiB
        path = asked.target.partition("?")[0]
        if asked.method == "DELETE":
            return [b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"]
        if path.endswith("/redirect"):
            return [b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % elsewhere.encode()]
        if path.endswith("/subject"):
            subject = (asked.header("X-User") or "anonymous").encode()
            return [_OK % (len(subject), subject)]
        return _scripts().get(path.rpartition("/")[2]) or [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]

    return play


@functools.cache
def _scripts() -> dict[str, Script]:
    large = b"".join(b"data: %06d%b\n\n" % (number, b"x" * 1000) for number in range(LARGE_BYTES // 1016))
    return {
        "ok": [_OK % (2, b"ok")],
        "silent": [EVENT_STREAM_HEAD, Silence()],
        "one": [EVENT_STREAM_HEAD, chunk(EVENT), Silence()],
        "endless": [EVENT_STREAM_HEAD, Act(_tick)],
        "megabyte": [EVENT_STREAM_HEAD, chunk(b"id: 1\ndata: %b\n\n" % (b"m" * MEGABYTE)), Silence()],
        "lines": [EVENT_STREAM_HEAD, chunk(b"data\n" * LINES + b"\n"), Silence()],
        "blocks": [EVENT_STREAM_HEAD, chunk(b"data: 1\n\n" * BLOCKS), LAST_CHUNK],
        "large": [EVENT_STREAM_HEAD, chunk(large), LAST_CHUNK],
        "flood": [EVENT_STREAM_HEAD, Flood(b"data: %b\n\n" % (b"f" * 1000))],
        "vertical-tab": [b"HTTP/1.1 200 OK\r\nX-Field: a\x0bb\r\nContent-Length: 2\r\n\r\nok"],
        **{f"bomb-{coding}": _bomb(coding) for coding in ("gzip", "br", "zstd")},
    }


prepare = _scripts
"""Makes all answers, which takes a few seconds."""


async def _tick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an event at a time, until the peer leaves."""
    number = 0
    while not writer.is_closing() and not reader.at_eof():
        number += 1
        writer.write(chunk(b"id: %d\ndata: tick\n\n" % number))
        await writer.drain()
        await asyncio.sleep(PERIOD_SECONDS)


def _bomb(coding: str) -> Script:
    """Return an event stream of BOMB_BYTES that a content coding makes tiny."""
    piece = b"data: %b\n\n" % (b"0" * (2**16 - 8))
    pieces = BOMB_BYTES // len(piece)
    if coding == "gzip":
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        coded = b"".join([*(deflate.compress(piece) for _ in range(pieces)), deflate.flush()])
    elif coding == "br":
        brotlify = brotli.Compressor(quality=5, lgwin=24)
        coded = b"".join([*(brotlify.process(piece) for _ in range(pieces)), brotlify.finish()])
    else:
        zstdify = zstd.ZstdCompressor()
        coded = b"".join([*(zstdify.compress(piece) for _ in range(pieces)), zstdify.flush()])
    head = EVENT_STREAM_HEAD.replace(b"Transfer", b"Content-Encoding: %b\r\nTransfer" % coding.encode())
    return [head, chunk(coded), LAST_CHUNK]
