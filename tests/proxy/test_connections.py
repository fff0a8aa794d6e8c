"""Keep-alive, pipelining, and ambiguous requests."""

import asyncio

import pytest

from tests.kit.downstream import Downstream, End, FramingError, connected
from tests.kit.routed_gateway import Gateway
from tests.kit.stage import FIELD, Scene, Stage
from tests.kit.upstream import Disconnect, Pause, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK

pytestmark = pytest.mark.asyncio(loop_scope="session")

STREAM = [HEAD, chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n"), LAST_CHUNK]
NO_BODY = b"HTTP/1.1 204 No Content\r\n\r\n"


def request(scene: Scene, target: str = "/plain", method: str = "GET") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: test\r\n%s: %s\r\n\r\n" % (
        method.encode(),
        target.encode(),
        FIELD.encode(),
        dict(scene.headers)[FIELD].encode(),
    )


async def test_many_streams_follow_one_another_on_one_connection(proxy: Gateway, stage: Stage) -> None:
    scene = stage.scene(*STREAM)
    async with Downstream(proxy.port) as downstream:
        for _ in range(50):
            await downstream.ask("/plain", headers=scene.headers)
            answer = await downstream.answer()
            assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"
            assert answer.end is End.COMPLETE


async def test_pipelined_requests_are_answered_in_order(proxy: Gateway, stage: Stage) -> None:
    slow, quick = Pause(), stage.scene(NO_BODY)
    scenes = [stage.scene(HEAD, slow, chunk(b"data: first\n\n"), LAST_CHUNK), quick, stage.scene(*STREAM)]
    async with Downstream(proxy.port) as downstream:
        await downstream.send(b"".join(request(scene) for scene in scenes))
        first = await downstream.answer()
        slow.go()
        assert await first.to_end() == b"data: first\n\n"
        assert (await downstream.answer()).head.status == 204
        assert await (await downstream.answer()).to_end() == b"data: 1\n\ndata: 2\n\n"


async def test_request_sent_while_a_stream_runs_is_answered_after_it(converse: Converse) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(b"data: 1\n\n"), pause, chunk(b"data: 2\n\n"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        await answer.receive(9)
        await talk.downstream.send(request(talk.scene))
        pause.go()
        assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"
        assert await (await talk.answer()).to_end() == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("during", [1, 20, -1], ids=["a byte", "a part", "all but a byte"])
async def test_request_that_arrives_partly_while_a_stream_runs_is_answered_after_it(converse: Converse, during: int) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(b"data: 1\n\n"), pause, chunk(b"data: 2\n\n"), LAST_CHUNK) as talk:
        answer = await talk.answer()
        await answer.receive(9)
        sent = request(talk.scene)
        await talk.downstream.send(sent[:during])
        pause.go()
        assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"
        await talk.downstream.send(sent[during:])
        assert await (await talk.answer()).to_end() == b"data: 1\n\ndata: 2\n\n"


async def test_request_after_a_stream_has_the_same_limits(converse: Converse) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\n"), LAST_CHUNK) as talk:
        assert await (await talk.answer()).to_end() == b"data: 1\n\n"
        await talk.downstream.ask("/plain", headers=[("X-Long", "x" * 40_000)])
        assert (await talk.answer()).head.status == 431


async def test_request_that_comes_byte_by_byte_is_served(proxy: Gateway, stage: Stage) -> None:
    scene = stage.scene(*STREAM)
    async with Downstream(proxy.port) as downstream:
        for byte in request(scene):
            await downstream.send(bytes([byte]))
        assert await (await downstream.answer()).to_end() == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_connection_continues_after_an_answer_without_body(proxy: Gateway, stage: Stage, method: str) -> None:
    for head in (
        NO_BODY,
        b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 100\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        scene = stage.scene(head)
        async with Downstream(proxy.port) as downstream:
            for _ in range(3):
                await downstream.ask("/plain", method, scene.headers)
                assert (await downstream.answer(method)).end is End.COMPLETE


async def test_client_gets_no_error_from_an_upstream_that_closes_unannounced_after_each_answer(proxy: Gateway, stage: Stage) -> None:
    scene = stage.scene(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Disconnect())

    async def ask_often(downstream: Downstream) -> list[int]:
        statuses = []
        for _ in range(25):
            await downstream.ask("/plain/closing", headers=scene.headers)
            answer = await downstream.answer()
            await answer.to_end()
            statuses.append(answer.head.status)
        return statuses

    async with connected(proxy.port, 16) as downstreams:
        results = await asyncio.gather(*map(ask_often, downstreams))
    assert {status for statuses in results for status in statuses} == {200}


async def test_close_is_honoured_after_a_stream(converse: Converse) -> None:
    async with converse(*STREAM, headers=[("Connection", "close")]) as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"
        assert answer.end is End.COMPLETE
        assert await talk.downstream.ended() is End.CUT_SHORT
        assert not talk.downstream.buffer


async def test_http_1_0_connection_is_closed_after_its_answer(converse: Converse) -> None:
    async with converse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", version="1.0") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"ok"
        assert await talk.downstream.ended() is End.CUT_SHORT


SMUGGLED = b"GET /plain/smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
AMBIGUOUS = {
    "length and chunked": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(SMUGGLED)),
    "two lengths": b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % len(SMUGGLED),
    "two lengths in one field": b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED),
    "signed length": b"Content-Length: +0\r\n\r\n",
    "negative length": b"Content-Length: -1\r\n\r\n",
    "hexadecimal length": b"Content-Length: 0x0\r\n\r\n",
    "blank before the colon": b"Content-Length : %d\r\n\r\n" % len(SMUGGLED),
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding behind chunked": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice in two fields": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "bad chunk size": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "negative chunk size": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "chunk longer than its size": b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n",
    "NUL in a field": b"X-Nul: a\x00b\r\n\r\n",
    "bare CR in a field": b"X-Bare: a\rContent-Length: 5\r\n\r\n",
    "folded field": b"X-Folded: a\r\n b\r\nContent-Length\r\n : 5\r\n\r\n",
}


@pytest.mark.parametrize("fault", AMBIGUOUS)
async def test_ambiguous_request_is_refused_and_smuggles_nothing(proxy: Gateway, stage: Stage, fault: str) -> None:
    """The second request in it, which another server might see, gets no answer."""
    scene = stage.scene(NO_BODY)
    head = request(scene, method="POST").removesuffix(b"\r\n")
    strays = len(stage.strays)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(head + AMBIGUOUS[fault] + SMUGGLED)
        try:
            answer = await downstream.answer()
        except FramingError:
            assert downstream.end  # closed without an answer: refused all the same
        else:
            assert answer.head.status in (400, 501), answer.head
            await downstream.ended()
    assert len(stage.strays) == strays, stage.strays


async def test_head_that_never_ends_is_refused(proxy: Gateway, stage: Stage) -> None:
    scene = stage.scene(NO_BODY)
    async with Downstream(proxy.port) as downstream:
        try:
            await downstream.send(request(scene).removesuffix(b"\r\n") + b"X-Large: " + b"x" * 2**20)
        except ConnectionError:
            return  # closed while the test was still sending
        answer = await downstream.answer()
        assert answer.head.status in (400, 413, 431)
    assert not scene.requests
