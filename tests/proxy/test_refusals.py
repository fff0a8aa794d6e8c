"""The answer when the proxy cannot serve a client: a status, a problem document, and when to retry."""

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.kit.downstream import Answer, Downstream, End
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.stage import Stage
from tests.kit.upstream import Disconnect, Pause, Silence, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

BODY_LIMIT = 10_000


@contextlib.contextmanager
def port_that_does_not_answer() -> Iterator[int]:
    """Yield a port whose backlog is full, so that connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def limited(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Run a gateway with narrow limits."""
    with port_that_does_not_answer() as port:
        routes: list[Route] = [
            {"path": "/plain", "upstream": stage.url} | stage.trust,
            {"path": "/hangs", "upstream": f"http://127.0.0.1:{port}", "connect_timeout_seconds": 0.3},
        ]
        limits = {"max_streams": 3, "max_streams_per_client": 2, "max_request_body_bytes": BODY_LIMIT, "drain_seconds": 1}
        async with running(routes, tmp_path_factory.mktemp("limited"), **limits) as subject:
            yield subject


async def problem(answer: Answer, status: int) -> dict[str, object]:
    """Check that `answer` is a problem document (RFC 9457), and return it."""
    body = await answer.to_end()
    assert answer.head.status == status, body
    assert answer.end is End.COMPLETE
    assert (answer.head.value("Content-Type") or "").startswith("application/problem+json")
    document = json.loads(body)
    assert document["status"] == status
    assert document["title"]
    retry = answer.head.value("Retry-After")
    if status in (429, 502, 503, 504):
        assert retry
        assert int(retry) >= 1
    return dict(document)


@contextlib.asynccontextmanager
async def opened(subject: Gateway, stage: Stage, source: str = "127.0.0.1") -> AsyncIterator[tuple[Downstream, Answer]]:
    """Open a stream that stays open."""
    scene = stage.scene(HEAD, chunk(b"data: x\n\n"), Silence())
    async with Downstream(subject.port, source=source) as downstream:
        await downstream.ask("/plain", headers=scene.headers)
        yield downstream, await downstream.answer()


async def test_unreachable_upstream_is_a_502(converse: Converse) -> None:
    async with converse(target="/unreachable/x") as talk:
        await problem(await talk.answer(), 502)
        await talk.downstream.ask("/nowhere")
        await problem(await talk.answer(), 404)  # the connection stays open


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"this is not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * 2**20 + b"\r\n\r\n",
    ],
    ids=["nothing", "not HTTP", "half a head", "bad status", "two lengths", "length and chunked", "huge field"],
)
async def test_malformed_answer_of_the_upstream_is_a_502(converse: Converse, answer: bytes) -> None:
    async with converse(*([answer] if answer else []), Disconnect(), method="POST", body=b"x") as talk:
        await problem(await talk.answer(), 502)


async def test_upstream_that_hangs_up_before_its_head_gets_one_request(converse: Converse) -> None:
    """A POST must not be repeated without the client's knowledge."""
    async with converse(Disconnect(reset=True), method="POST", body=b"pay 5 euros") as talk:
        await problem(await talk.answer(), 502)
        assert len(talk.scene.requests) == 1


async def test_connect_timeout_is_a_504(limited: Gateway) -> None:
    async with Downstream(limited.port) as downstream:
        await downstream.ask("/hangs")
        await problem(await downstream.answer(), 504)


async def test_first_byte_timeout_is_a_504_and_ends_the_upstream_request(converse: Converse) -> None:
    async with converse(Silence(), target="/first-byte") as talk:
        await problem(await talk.answer(), 504)
        await talk.scene.left()


async def test_first_byte_timeout_ends_with_the_head(converse: Converse) -> None:
    pause = Pause()
    heartbeats = converse(HEAD, Pause(), target="/heartbeat")
    async with converse(HEAD, pause, chunk(b"data: x\n\n"), LAST_CHUNK, target="/first-byte") as talk, heartbeats as clock:
        answer = await talk.answer()
        await (await clock.answer()).receive(2 * 6)  # 6 heartbeats, 0.25 s each
        pause.go()
        assert await answer.to_end() == b"data: x\n\n"
        assert answer.end is End.COMPLETE


async def test_path_without_a_route_is_a_404(converse: Converse, stage: Stage) -> None:
    async with converse(target="/nowhere") as talk:
        await problem(await talk.answer(), 404)
        assert not talk.scene.requests
        await talk.downstream.ask("/nowhere/else")
        await problem(await talk.answer(), 404)  # and the connection stays open


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH"])
async def test_method_that_the_route_does_not_allow_is_a_405(converse: Converse, method: str) -> None:
    async with converse(target="/get-and-post", method=method) as talk:
        answer = await talk.answer()
        await problem(answer, 405)
        assert {"GET", "POST"} <= set((answer.head.value("Allow") or "").replace(" ", "").split(","))
        assert method not in (answer.head.value("Allow") or "")
        assert not talk.scene.requests


async def test_trace_is_a_405_on_every_route(converse: Converse) -> None:
    async with converse(method="TRACE") as talk:
        await problem(await talk.answer(), 405)
        assert not talk.scene.requests


async def test_body_over_the_limit_is_a_413(limited: Gateway, stage: Stage) -> None:
    scene = stage.scene(HEAD, LAST_CHUNK)
    async with Downstream(limited.port) as downstream:
        await downstream.ask("/plain", "POST", scene.headers, b"x" * (BODY_LIMIT + 1))
        await problem(await downstream.answer(), 413)
    assert not scene.requests
    async with Downstream(limited.port) as downstream:
        await downstream.ask("/plain", "POST", scene.headers, b"x" * BODY_LIMIT)
        assert (await downstream.answer()).head.status == 200
    assert len(scene.requests[0].body) == BODY_LIMIT


async def test_chunked_body_over_the_limit_is_a_413_and_never_complete_for_the_upstream(limited: Gateway, stage: Stage) -> None:
    scene = stage.scene(HEAD, LAST_CHUNK)  # played when the whole body has come
    async with Downstream(limited.port) as downstream:
        await downstream.ask("/plain", "POST", [*scene.headers, ("Transfer-Encoding", "chunked")])
        await downstream.send(chunk(b"x" * BODY_LIMIT))
        await downstream.send(chunk(b"x") + LAST_CHUNK)
        await problem(await downstream.answer(), 413)
    assert not scene.requests


async def test_body_over_the_limit_is_refused_before_it_is_sent(limited: Gateway, stage: Stage) -> None:
    scene = stage.scene(HEAD, LAST_CHUNK)
    headers = [*scene.headers, ("Expect", "100-continue"), ("Content-Length", str(BODY_LIMIT + 1))]
    async with Downstream(limited.port) as downstream:
        await downstream.ask("/plain", "POST", headers)
        await problem(await downstream.answer(), 413)
    assert not scene.requests


async def test_stream_beyond_the_limit_of_a_client_is_a_429(limited: Gateway, stage: Stage) -> None:
    async with opened(limited, stage), opened(limited, stage) as (second, answer):
        assert answer.head.status == 200
        async with opened(limited, stage) as (_, refused):
            await problem(refused, 429)
        async with opened(limited, stage, source="127.0.0.2") as (_, other):
            assert other.head.status == 200
        second.close()
        await is_served_again(limited, stage)


async def test_stream_beyond_the_limit_of_all_is_a_503(limited: Gateway, stage: Stage) -> None:
    async with opened(limited, stage), opened(limited, stage, "127.0.0.2"), opened(limited, stage, "127.0.0.3") as (third, answer):
        assert answer.head.status == 200
        async with opened(limited, stage, "127.0.0.4") as (_, refused):
            await problem(refused, 503)
        third.close()
        await is_served_again(limited, stage)


async def is_served_again(subject: Gateway, stage: Stage) -> None:
    """Return when a new stream is served; the proxy may need a moment to notice that another one has ended."""
    for _ in range(100):
        async with opened(subject, stage) as (_, answer):
            if answer.head.status == 200:
                return
    pytest.fail("the slot of a stream that ended is not freed")
