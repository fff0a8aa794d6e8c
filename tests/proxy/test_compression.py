"""Event streams that an upstream compresses against Accept-Encoding: decoded or unchanged, never broken."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

import brotli
import pytest
import zstandard

from tests.kit.downstream import Answer, End
from tests.kit.upstream import Disconnect, Pause, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import LAST_CHUNK

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVENTS = [b"data: %d %s\n\n" % (number, b"x" * 50) for number in range(3)]


class Compressor(Protocol):
    def piece(self, plain: bytes) -> bytes:
        """Compress and flush, so that the receiver can read everything."""

    def end(self) -> bytes: ...


class Gzip:
    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=31)

    def piece(self, plain: bytes) -> bytes:
        return self._compressor.compress(plain) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class Brotli:
    def __init__(self) -> None:
        self._compressor = brotli.Compressor()

    def piece(self, plain: bytes) -> bytes:
        return bytes(self._compressor.process(plain) + self._compressor.flush())

    def end(self) -> bytes:
        return bytes(self._compressor.finish())


class Zstandard:
    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor().compressobj()

    def piece(self, plain: bytes) -> bytes:
        return self._compressor.compress(plain) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._compressor.flush()


CODINGS: dict[str, Callable[[], Compressor]] = {"gzip": Gzip, "br": Brotli, "zstd": Zstandard}
CODING = pytest.mark.parametrize("coding", CODINGS)


def head(coding: str) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
        % coding.encode()
    )


def plain(answer: Answer) -> bytes:
    """Decode the bytes so far, by the answer's own head."""
    body = bytes(answer.body)
    match answer.head.value("Content-Encoding"):
        case None | "identity":
            return body
        case "gzip":
            return zlib.decompressobj(wbits=31).decompress(body)
        case "br":
            return bytes(brotli.Decompressor().process(body))
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        case other:
            raise AssertionError(f"Content-Encoding is {other}")


def has_come(answer: Answer, due: bytes, _: bytes) -> bool:
    return plain(answer).replace(b":\n\n", b"") == due


@CODING
@pytest.mark.parametrize("target", ["/plain", "/heartbeat"])
async def test_compressed_stream_stays_readable_event_by_event(converse: Converse, coding: str, target: str) -> None:
    compressor = CODINGS[coding]()
    pauses = [Pause() for _ in EVENTS]
    steps = [step for event, pause in zip(EVENTS, pauses, strict=True) for step in (chunk(compressor.piece(event)), pause)]
    async with converse(head(coding), *steps, chunk(compressor.end()), LAST_CHUNK, target=target) as talk:
        answer = await talk.answer()
        for number, pause in enumerate(pauses, 1):
            due = b"".join(EVENTS[:number])
            await answer.receive_until(partial(has_come, answer, due))
            pause.go()
        await answer.to_end()
        assert plain(answer).replace(b":\n\n", b"") == b"".join(EVENTS)
        assert answer.end is End.COMPLETE


@CODING
async def test_compressed_stream_cut_anywhere_passes(converse: Converse, coding: str) -> None:
    compressor = CODINGS[coding]()
    body = b"".join(compressor.piece(event) for event in EVENTS) + compressor.end()
    async with converse(head(coding), *(chunk(bytes([byte])) for byte in body), LAST_CHUNK) as talk:
        answer = await talk.answer()
        await answer.to_end()
        assert plain(answer) == b"".join(EVENTS)
        assert answer.end is End.COMPLETE


@CODING
async def test_compressed_stream_that_is_cut_short_never_looks_complete(converse: Converse, coding: str) -> None:
    compressor = CODINGS[coding]()
    first = compressor.piece(EVENTS[0])
    pause = Pause()
    async with converse(head(coding), chunk(first), pause, Disconnect()) as talk:
        answer = await talk.answer()
        await answer.receive_until(lambda _: plain(answer) == EVENTS[0])
        pause.go()
        await answer.to_end()
        assert plain(answer) == EVENTS[0]
        assert answer.end in (End.CUT_SHORT, End.RESET)


@CODING
@pytest.mark.parametrize("tail", [b"", b"data: tail\n", b"data: tail"])
async def test_coded_body_that_only_the_connection_delimits_is_whole_at_the_end_of_its_coding(
    converse: Converse, gateway: None, coding: str, tail: bytes
) -> None:
    until_close = head(coding).replace(b"Transfer-Encoding: chunked", b"Connection: close")

    async def ends(body: bytes) -> tuple[bytes, bool]:
        async with converse(until_close, body, Disconnect()) as talk:
            answer = await talk.answer()
            return await answer.to_end(), answer.end is End.COMPLETE

    compressor = CODINGS[coding]()
    flushed = compressor.piece(EVENTS[0] + tail)
    whole = tail.endswith(b"\n") or not tail
    assert await ends(flushed) == (EVENTS[0], False)
    assert await ends(flushed + compressor.end()) == (EVENTS[0] + (tail if whole else b""), whole)


async def test_other_compressed_content_passes_untouched(converse: Converse) -> None:
    body = zlib.compress(b"plain text" * 100, wbits=31)
    fields = b"Content-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body)
    async with converse(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body, headers=[("Accept-Encoding", "gzip")]) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == body
        assert answer.head.value("Content-Encoding") == "gzip"
        assert (await talk.scene.asked()).header("Accept-Encoding") == "gzip"
