"""Which answers are event streams; all others pass unchanged."""

import json
import zlib

import pytest

from tests.kit.downstream import End
from tests.kit.routed_gateway import Gateway
from tests.kit.upstream import Disconnect, Pause, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK

pytestmark = pytest.mark.asyncio(loop_scope="session")

ERROR = b'{"error": {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED"}}'


def refusal(status: int, fields: bytes = b"") -> bytes:
    """Return the head of an error with the content type of the requested stream, as Gemini's API sends it."""
    length = b"Content-Length: %d\r\n" % len(ERROR)
    return b"HTTP/1.1 %d Error\r\nContent-Type: text/event-stream\r\n" % status + (fields or length) + b"\r\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [201, 206, 400, 401, 404, 429, 500, 503])
async def test_error_with_the_content_type_of_a_stream_passes_untouched(converse: Converse, status: int, method: str) -> None:
    async with converse(refusal(status) + ERROR, method=method, target="/heartbeat") as talk:
        answer = await talk.answer()
        assert answer.head.status == status
        assert answer.head.value("Content-Type") == "text/event-stream"
        assert answer.head.value("Content-Length") == str(len(ERROR))
        assert await answer.to_end() == ERROR
        assert answer.end is End.COMPLETE


async def test_error_in_chunks_passes_as_it_comes(converse: Converse) -> None:
    pause = Pause()
    head = refusal(500, b"Transfer-Encoding: chunked\r\n")
    async with converse(head + chunk(ERROR[:20]), pause, chunk(ERROR[20:]) + LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert await answer.receive(20) == ERROR[:20]
        pause.go()
        assert await answer.to_end() == ERROR
        assert answer.end is End.COMPLETE


async def test_compressed_error_with_the_content_type_of_a_stream_stays_compressed(converse: Converse) -> None:
    body = zlib.compress(ERROR, wbits=31)
    fields = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(body)
    async with converse(refusal(429, fields) + body) as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Encoding") == "gzip"
        assert await answer.to_end() == body


async def test_head_of_an_error_keeps_its_length(converse: Converse) -> None:
    async with converse(refusal(404), method="HEAD") as talk:
        answer = await talk.answer()
        assert answer.head.status == 404
        assert answer.head.value("Content-Length") == str(len(ERROR))
        assert answer.end is End.COMPLETE


async def test_error_that_is_cut_short_gets_no_error_event(converse: Converse, gateway: None) -> None:
    async with converse(refusal(500) + ERROR[:20], Disconnect(), target="/error-event") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == ERROR[:20]
        assert answer.end in (End.CUT_SHORT, End.RESET)


def coded(coding: bytes) -> bytes:
    """Return the head of an event stream with this content coding."""
    return HEAD.replace(b"Transfer-Encoding", b"Content-Encoding: %b\r\nTransfer-Encoding" % coding)


@pytest.mark.parametrize("coding", [b"none", b"None", b"identity, none", b"none\r\nContent-Encoding: identity"])
async def test_absence_of_a_coding_by_any_name_is_framed(converse: Converse, gateway: None, coding: bytes) -> None:
    pause = Pause()
    async with converse(coded(coding), chunk(b"data: 1\n\ndata: "), pause, chunk(b"2\n\n") + LAST_CHUNK, target="/heartbeat") as talk:
        answer = await talk.answer()
        body = await answer.receive(11)
        assert body.startswith(b"data: 1\n\n:\n")  # the unfinished block is held back, and heartbeats come
        pause.go()
        assert (await answer.to_end()).endswith(b"data: 2\n\n")


async def test_stream_in_a_coding_and_none_is_decoded(converse: Converse, gateway: None) -> None:
    body = zlib.compress(b"data: 1\n\n", wbits=31)
    async with converse(coded(b"gzip, none"), chunk(body), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Encoding") is None
        assert await answer.to_end() == b"data: 1\n\n"


@pytest.mark.parametrize("coding", [b"rot13", b"gzip, br"])
async def test_stream_in_an_unknown_coding_passes_untouched_and_is_logged_once(
    converse: Converse, gateway: None, proxy: Gateway, coding: bytes
) -> None:
    target = f"/heartbeat/{coding.hex()}"
    pause = Pause()
    async with converse(coded(coding), chunk(b"qngn: 1\n"), pause, chunk(b"\nqn"), LAST_CHUNK, target=target) as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Encoding") == coding.decode()
        assert await answer.receive(8) == b"qngn: 1\n"
        pause.go()
        assert await answer.to_end() == b"qngn: 1\n\nqn"
        assert answer.end is End.COMPLETE
    lines = [json.loads(line) for line in proxy.text().splitlines() if target in line]
    [said] = [line for line in lines if "unknown content coding" in line["event"]]
    assert (said["level"], said["content_encoding"]) == ("warning", coding.decode())


async def test_stream_in_an_unknown_coding_is_aborted_when_it_is_lost(converse: Converse, gateway: None) -> None:
    async with converse(coded(b"rot13"), chunk(b"qngn: 1\n\nqngn"), Disconnect(), target="/error-event") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"qngn: 1\n\nqngn"
        assert answer.end in (End.CUT_SHORT, End.RESET)
