"""The guard for what gateway/http/upstream_client.py takes for granted of aiohttp: what it sends is what aiohttp's own session sends."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from multidict import CIMultiDict

from gateway.http.upstream import open_session
from gateway.http.upstream_client import Answer, UpstreamAnswer, UpstreamClient
from gateway.http.upstream_protocol import BadHead
from gateway.policy.target import url_of
from tests.gateway.receiving import Recorder, attached
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Disconnect, Pause, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=GUARD_SECONDS)
FIELDS = [("Accept", "*/*"), ("X-Same", "1"), ("X-Same", "zwei: ü")]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(keepalive_seconds=GUARD_SECONDS, max_header_bytes=16_384) as session:
        yield session


async def ask(
    session: aiohttp.ClientSession,
    upstream: str,
    *,
    method: str = "GET",
    target: str = "/",
    fields: list[tuple[str, str]] | None = None,
    data: object = None,
) -> UpstreamAnswer:
    async with asyncio.timeout(GUARD_SECONDS):
        client = UpstreamClient(session)
        return await client.ask(method, upstream, target, fields=CIMultiDict(fields or ()), data=data, timeout=TIMEOUT)


def body_of(answer: UpstreamAnswer) -> bytes:
    """Receive a complete body."""
    receiver = attached(answer, Recorder())
    assert receiver.ends == ["ended"]
    return receiver.body


async def chunks() -> AsyncIterator[bytes]:
    yield b"in "
    yield b"parts"


@pytest.mark.parametrize("prefix", ["", "/below/this", "/%2Fodd;a"])
@pytest.mark.parametrize(
    ("method", "target", "fields", "data"),
    [
        ("GET", "/", FIELDS, None),
        ("GET", "//twice//?a=1&a=%zz?/%C3%A9", [], None),
        ("GET", "/..;/./%2e/\\x|^[]{}'\"?q=`~&?=", [*FIELDS, ("Content-Length", "0")], None),
        ("HEAD", "/head?", FIELDS, None),
        ("OPTIONS", "/options", FIELDS, None),
        ("DELETE", "/gone", FIELDS, None),
        ("POST", "/empty", FIELDS, None),
        ("POST", "/empty", [("Content-Length", "0")], b""),
        ("POST", "/chunked", FIELDS, b"as many bytes as came in chunks"),
        ("PUT", "/known", [*FIELDS, ("Content-Length", "5"), ("Content-Type", "a/b")], b"bytes"),
        ("GET", "/with-body", FIELDS, b"unusual"),
        ("POST", "/elsewhere", [*FIELDS, ("Host", "rule.example:81")], b"x"),
    ],
)
async def test_plain_request_is_sent_as_by_aiohttps_session(
    session: aiohttp.ClientSession, prefix: str, method: str, target: str, fields: list[tuple[str, str]], data: bytes | None
) -> None:
    async with ScriptedUpstream([b"HTTP/1.1 204 No Content\r\n\r\n"]) as upstream:
        answer = await ask(session, upstream.url + prefix, method=method, target=target, fields=fields, data=data)
        assert isinstance(answer, Answer)
        url = url_of(upstream.url + prefix, target)
        async with session.request(method, url, headers=CIMultiDict(fields), data=data) as like:
            assert like.status == answer.status == 204
        ours, theirs = upstream.requests
    assert (ours.method, ours.target, ours.version, ours.body) == (theirs.method, theirs.target, theirs.version, theirs.body)
    assert ours.target == prefix + target
    assert sorted(ours.headers) == sorted(theirs.headers)
    assert [name for name, _ in ours.headers].count("Host") == 1


@pytest.mark.parametrize("target", ["/a#b", "/a\tb"])
async def test_target_that_is_not_plain_is_left_to_aiohttps_session(session: aiohttp.ClientSession, target: str) -> None:
    async with ScriptedUpstream([OK]) as upstream:
        assert isinstance(await ask(session, upstream.url, target=target), aiohttp.ClientResponse)


async def test_body_that_comes_in_parts_is_left_to_aiohttps_session(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([OK]) as upstream:
        answer = await ask(session, upstream.url, method="POST", data=chunks())
        assert isinstance(answer, aiohttp.ClientResponse)
        assert upstream.requests[0].body == b"in parts"


@pytest.mark.parametrize("name", ["X\r\nInjected", "X"])
async def test_invalid_field_is_refused_before_the_upstream_request(session: aiohttp.ClientSession, name: str) -> None:
    async with ScriptedUpstream([OK]) as upstream:
        with pytest.raises(ValueError, match="Forbidden control character"):
            await ask(session, upstream.url, fields=[(name, "a\r\nb")])
        assert not upstream.requests


async def test_connection_serves_the_next_request_when_the_body_has_ended(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([OK]) as upstream:
        first = await ask(session, upstream.url)
        assert (first.status, first.reason, first.headers["Content-Length"], body_of(first)) == (200, "OK", "2", b"ok")
        first.close()
        second = await ask(session, upstream.url, method="POST", data=b"x")
        assert second._protocol is first._protocol
        assert body_of(second) == b"ok"


async def test_events_of_an_open_answer_come_past_the_stream_reader(session: aiohttp.ClientSession) -> None:
    pause = Pause()
    async with ScriptedUpstream([EVENT_STREAM_HEAD, pause, chunk(b"data: 1\n\n"), LAST_CHUNK]) as upstream:
        answer = await ask(session, upstream.url)
        receiver = attached(answer, Recorder())
        pause.go()
        assert await receiver.until_over() == "ended"
        assert (receiver.body, answer.content.total_bytes) == (b"data: 1\n\n", 0)


async def test_answer_to_head_has_no_body_and_its_connection_is_not_reused(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"], [OK]) as upstream, asyncio.timeout(GUARD_SECONDS):
        head = await ask(session, upstream.url, method="HEAD")
        assert head.content.is_eof()
        head.close()
        await upstream.requests[0].left.wait()  # upstreams that send the body of a HEAD send it when they like
        assert body_of(await ask(session, upstream.url)) == b"ok"


async def test_connection_ends_when_the_answer_is_closed_before_its_body_has_ended(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([EVENT_STREAM_HEAD, Silence()]) as upstream, asyncio.timeout(GUARD_SECONDS):
        answer = await ask(session, upstream.url)
        answer.close()
        await upstream.requests[0].left.wait()
        answer.close()  # again changes nothing


async def test_connection_ends_when_no_request_waits_for_the_answer(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Silence()]) as upstream, asyncio.timeout(GUARD_SECONDS):
        asking = asyncio.create_task(ask(session, upstream.url))
        await upstream.wait_for_requests(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await upstream.requests[0].left.wait()


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_idempotent_request_is_sent_again_when_the_kept_connection_was_closed(session: aiohttp.ClientSession, method: str) -> None:
    async with ScriptedUpstream([OK], [Disconnect()], [OK]) as upstream:
        (await ask(session, upstream.url)).close()
        assert body_of(await ask(session, upstream.url, method=method, data=b"same")) == b"ok"
        assert [each.body for each in upstream.requests[1:]] == [b"same", b"same"]


async def test_other_request_is_sent_once(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Disconnect()]) as upstream:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(session, upstream.url, method="POST", data=b"once")
        assert len(upstream.requests) == 1


async def test_informational_answers_are_passed_over(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK]) as upstream:
        answer = await ask(session, upstream.url)
        assert (answer.status, "Link" in answer.headers, body_of(answer)) == (200, False, b"ok")


@pytest.mark.parametrize("method", ["GET", "M-SEARCH"])
@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"042 x", b"000"])
async def test_status_that_is_not_of_a_final_answer_is_an_error_and_ends_the_connection(
    session: aiohttp.ClientSession, method: str, status: bytes
) -> None:
    head = b"HTTP/1.1 %b\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" % status
    async with ScriptedUpstream([head, Silence()]) as upstream, asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(BadHead, match=f"status {status[:3].decode()}"):
            await ask(session, upstream.url, method=method)
        await upstream.requests[0].left.wait()


async def test_answer_that_is_not_http_is_an_error_and_ends_the_connection(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([b"SSH-2.0-x\r\n\r\n", Silence()]) as upstream, asyncio.timeout(GUARD_SECONDS):
        with pytest.raises(aiohttp.ClientResponseError):
            await ask(session, upstream.url)
        await upstream.requests[0].left.wait()


async def test_without_keeping_connections_each_request_says_so() -> None:
    async with open_session(keepalive_seconds=0, max_header_bytes=16_384) as session, ScriptedUpstream([OK]) as upstream:
        assert body_of(await ask(session, upstream.url)) == b"ok"
        assert upstream.requests[0].header("Connection") == "close"
