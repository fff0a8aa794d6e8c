"""Requests and responses of every kind pass as HTTP requires."""

import asyncio

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Act, Disconnect, Pause, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK

pytestmark = pytest.mark.asyncio(loop_scope="session")


STATUSES = [
    "200 OK", "201 Created", "203 Non-Authoritative Information", "206 Partial Content", "301 Moved Permanently",
    "307 Temporary Redirect", "400 Bad Request", "401 Unauthorized", "404 Not Found", "418 I'm a teapot", "429 Too Many Requests",
    "500 Oh", "503 Later", "599 Odd",
]  # fmt: skip


def answer_of(body: bytes, status: str = "200 OK", fields: bytes = b"Content-Type: text/plain\r\n") -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), fields, len(body), body)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT"])
@pytest.mark.parametrize("body", [b"", b"a body \x00\xff"])
async def test_any_method_passes_with_its_body(converse: Converse, method: str, body: bytes) -> None:
    async with converse(answer_of(b"done"), method=method, body=body, headers=[("Content-Type", "application/x-thing")]) as talk:
        answer = await talk.answer()
        asked = await talk.scene.asked()
        assert await answer.to_end() == b"done"
        assert (asked.method, asked.body, asked.header("Content-Type")) == (method, body, "application/x-thing")


@pytest.mark.parametrize("status", STATUSES)
async def test_any_status_passes_with_its_body(converse: Converse, status: str) -> None:
    fields = b"Content-Type: application/x-thing\r\nLocation: /elsewhere\r\nRetry-After: 7\r\n"
    async with converse(answer_of(b"\x00 body \xff", status, fields)) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"\x00 body \xff"
        assert answer.end is End.COMPLETE
        assert answer.head.status == int(status[:3])
        assert answer.head.value("Content-Type") == "application/x-thing"
        assert answer.head.value("Location") == "/elsewhere"
        assert answer.head.value("Retry-After") == "7"
    assert len(talk.scene.requests) == 1


@pytest.mark.parametrize("body", ["whole", "chunked", "later", "close-delimited", "none"])
async def test_answer_without_a_media_type_gets_none(converse: Converse, gateway: None, body: str) -> None:
    pause = Pause()
    pause.go()
    script = {
        "whole": [answer_of(b"ok", fields=b"")],
        "chunked": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"ok"), LAST_CHUNK],
        "later": [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", pause, b"ok"],
        "close-delimited": [b"HTTP/1.1 200 OK\r\n\r\nok", Disconnect()],
        "none": [b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"],
    }[body]
    async with converse(*script) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == (b"" if body == "none" else b"ok")
        assert answer.head.value("Content-Type") is None


async def test_event_stream_with_an_error_status_passes(converse: Converse) -> None:
    async with converse(HEAD.replace(b"200 OK", b"500 Oh"), chunk(b"data: x\n\n"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert (answer.head.status, await answer.to_end()) == (500, b"data: x\n\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_event_stream_answers_any_method(converse: Converse, method: str) -> None:
    pause = Pause()
    script = [HEAD, chunk(b"data: x\n\ndata:"), pause, chunk(b" y\n\n"), LAST_CHUNK]
    async with converse(*script, method=method, body=b'{"stream": true}') as talk:
        answer = await talk.answer()
        assert await answer.receive(9) == b"data: x\n\n"
        pause.go()
        assert await answer.to_end() == b"data: x\n\ndata: y\n\n"


async def test_head_gets_the_fields_and_no_body(converse: Converse) -> None:
    async with converse(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 12345\r\n\r\n", method="HEAD") as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Length") == "12345"
        assert answer.head.value("Content-Type") == "image/png"
        assert (await talk.scene.asked()).method == "HEAD"


async def test_head_of_an_event_stream_ends_at_once(converse: Converse) -> None:
    async with converse(HEAD, method="HEAD") as talk:
        answer = await talk.answer()
        assert answer.head.value("Content-Type") == "text/event-stream"
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nX-Kept: yes\r\n\r\n',
        b'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: "v1"\r\nX-Kept: yes\r\n\r\n',
        b"HTTP/1.1 204 No Content\r\nContent-Type: text/event-stream\r\nX-Kept: yes\r\n\r\n",
    ],
)
async def test_answer_without_body_passes(converse: Converse, head: bytes) -> None:
    async with converse(head, headers=[("If-None-Match", '"v1"')]) as talk:
        answer = await talk.answer()
        assert answer.head.status == int(head.split()[1])
        assert answer.head.value("X-Kept") == "yes"
        assert answer.head.value("Transfer-Encoding") is None
        assert (await talk.scene.asked()).header("If-None-Match") == '"v1"'


@pytest.mark.parametrize("interim", [b"103 Early Hints\r\nLink: </s.css>; rel=preload", b"102 Processing", b"100 Continue"])
async def test_interim_response_is_not_taken_for_the_final_one(converse: Converse, interim: bytes) -> None:
    async with converse(b"HTTP/1.1 %s\r\n\r\n" % interim * 2, HEAD, chunk(b"data: x\n\n"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert answer.head.status == 200
        assert {head.status for head in answer.interim} <= {int(interim[:3])}
        assert await answer.to_end() == b"data: x\n\n"


@pytest.mark.parametrize(
    "target",
    [
        "/plain/a%2Fb/%7Ex?q=a+b%20c&x=%C3%A9",
        "/plain/%e4%b8%83/%E4%B8%83",
        "/plain//a///b/",
        "/plain/:@!$&'()*+,;=~-._",
        "/plain/a;b=c?d;e&f=&=g&h",
        "/plain?a=b?c/d:e@f",
        "/plain?x=%00%0a%0d",
        "/plain?",
        "/plain??",
        "/plain?redirect=http://example.com/?a=b%26c",
        "/plain/" + "long/" * 700,
    ],
)
async def test_target_passes_unchanged(converse: Converse, target: str) -> None:
    async with converse(answer_of(b""), target=target) as talk:
        assert (await talk.answer()).head.status == 200
        assert (await talk.scene.asked()).target == target


async def test_path_of_the_upstream_url_is_kept(converse: Converse, gateway: None) -> None:
    async with converse(answer_of(b""), target="/base/a%2Fb?c=d") as talk:
        await talk.answer()
        assert (await talk.scene.asked()).target == "/below/this/base/a%2Fb?c=d"


async def test_longest_prefix_decides(converse: Converse, gateway: None) -> None:
    async with converse(answer_of(b""), target="/base/plain/x") as talk:
        await talk.answer()
        assert (await talk.scene.asked()).target == "/base/plain/x"


async def test_absolute_target_is_served(converse: Converse) -> None:
    async with converse(answer_of(b"ok"), target="http://elsewhere.example/plain/x?y") as talk:
        answer = await talk.answer()
        assert (answer.head.status, await answer.to_end()) == (200, b"ok")
        assert (await talk.scene.asked()).target == "/plain/x?y"


async def test_chunked_request_body_passes_and_its_trailers_are_dropped(converse: Converse) -> None:
    headers = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")]
    async with converse(answer_of(b"ok"), method="POST", headers=headers) as talk:
        await talk.downstream.send(chunk(b"one ") + chunk(b"two") + b"0\r\nX-Sum: 7\r\n\r\n")
        answer = await talk.answer()
        asked = await talk.scene.asked()
        assert (answer.head.status, await answer.to_end(), asked.body) == (200, b"ok", b"one two")
        assert asked.header("X-Sum") is None
        await talk.downstream.ask("/plain", headers=talk.scene.headers)
        assert (await talk.answer()).head.status == 200


async def test_trailers_of_the_response_are_dropped(converse: Converse) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nTrailer: X-Sum\r\n\r\n")
    async with converse(head, chunk(b"data: x\n\n"), b"0\r\nX-Sum: 7\r\n\r\n") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: x\n\n"
        assert answer.end is End.COMPLETE
        assert answer.trailers == []
        await talk.downstream.ask("/plain", headers=talk.scene.headers)
        assert await (await talk.answer()).to_end() == b"data: x\n\n"


@pytest.mark.parametrize("coding", [[("Content-Length", "10")], [("Transfer-Encoding", "chunked")]], ids=["length", "chunked"])
async def test_request_body_streams_up_while_it_is_being_sent(converse: Converse, gateway: None, coding: list[tuple[str, str]]) -> None:
    first_half = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"hello")
        first_half.set()
        await reader.readuntil(b"world")
        if coding[0][1] == "chunked":
            await reader.readuntil(b"0\r\n\r\n")
        writer.write(answer_of(b"done"))

    chunked = coding[0][1] == "chunked"
    async with converse(Act(echo), method="POST", headers=coding, read_body=False) as talk:
        await talk.downstream.send(chunk(b"hello") if chunked else b"hello")
        async with asyncio.timeout(5):
            await first_half.wait()
        await talk.downstream.send(chunk(b"world") + LAST_CHUNK if chunked else b"world")
        assert await (await talk.answer()).to_end() == b"done"


async def test_expect_100_continue_is_answered_before_the_body_is_sent(converse: Converse) -> None:
    headers = [("Expect", "100-continue"), ("Content-Length", "5")]
    async with converse(answer_of(b"ok"), method="POST", headers=headers) as talk:
        async with asyncio.timeout(5):
            while b"100 Continue\r\n\r\n" not in talk.downstream.buffer:
                assert await talk.downstream.fill()
        await talk.downstream.send(b"hello")
        answer = await talk.answer()
        assert [head.status for head in answer.interim] == [100]
        assert (await answer.to_end(), (await talk.scene.asked()).body) == (b"ok", b"hello")


async def test_answer_that_comes_before_the_request_body_is_passed_on(converse: Converse, gateway: None) -> None:
    """An upstream may refuse a body without reading it, and the client must get that answer."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer_of(b"no", "403 Forbidden"))
        await writer.drain()

    async with converse(Act(refuse), method="POST", headers=[("Content-Length", "100000")], read_body=False) as talk:
        await talk.downstream.send(b"x" * 1000)
        answer = await talk.answer()
        assert (answer.head.status, await answer.to_end()) == (403, b"no")


async def test_upstream_that_answers_during_the_request_body_gets_the_rest_of_it(converse: Converse, gateway: None) -> None:
    async def answer_and_read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + chunk(b"data: 1\n\n"))
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(chunk(b"data: 2\n\n") + LAST_CHUNK)

    async with converse(Act(answer_and_read_on), method="POST", headers=[("Transfer-Encoding", "chunked")], read_body=False) as talk:
        await talk.downstream.send(chunk(b"hello"))
        answer = await talk.answer()
        assert await answer.receive(9) == b"data: 1\n\n"
        await talk.downstream.send(chunk(b"world") + LAST_CHUNK)
        assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"


async def test_head_of_the_response_is_sent_before_any_event(converse: Converse) -> None:
    pause = Pause()
    async with converse(HEAD, pause, chunk(b"data: x\n\n"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        assert answer.head.status == 200
        pause.go()
        assert await answer.to_end() == b"data: x\n\n"


async def test_answer_of_an_http_1_0_upstream_passes(converse: Converse) -> None:
    async with converse(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"data: x\n\n", Disconnect()) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: x\n\n"
        assert answer.end is End.COMPLETE
