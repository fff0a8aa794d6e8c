"""Clients that are slow on purpose: slow heads and bodies, and connections that send nothing."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit.downstream import Downstream, End
from tests.kit.routed_gateway import Gateway, running
from tests.kit.stage import Stage
from tests.kit.upstream import Act, chunk, swallow

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD_SECONDS = 0.8
BODY_SECONDS = 0.4
STEADY_SECONDS = 1.5
"""For a client that must not stall this long itself, as a busy machine may make it."""
KEEPALIVE_SECONDS = 1.5
DRIP_SECONDS = 0.05


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def impatient(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Run a gateway with short time limits."""
    routes = [
        {"path": "/plain", "upstream": stage.url, "body_timeout_seconds": BODY_SECONDS} | stage.trust,
        {"path": "/kept", "upstream": stage.url, "body_timeout_seconds": BODY_SECONDS, "mode": "resumable"} | stage.trust,
        {"path": "/steady", "upstream": stage.url, "body_timeout_seconds": STEADY_SECONDS} | stage.trust,
        {"path": "/upload", "upstream": stage.url, "first_byte_timeout_seconds": BODY_SECONDS} | stage.trust,
        {"path": "/upload/kept", "upstream": stage.url, "first_byte_timeout_seconds": BODY_SECONDS, "mode": "resumable"} | stage.trust,
        {"path": "/patient", "upstream": stage.url, "body_timeout_seconds": 0} | stage.trust,
    ]
    directory = tmp_path_factory.mktemp("impatient")
    limits = {"head_seconds": HEAD_SECONDS, "keepalive_seconds": KEEPALIVE_SECONDS, "drain_seconds": 1}
    async with running(routes, directory, **limits) as subject:
        yield subject


@contextlib.asynccontextmanager
async def dripping(downstream: Downstream, sent: bytes) -> AsyncIterator[None]:
    """Send the bytes one by one, for ever when there are enough, until the block is left or the gateway hangs up."""

    async def drip() -> None:
        for at in range(len(sent)):
            await downstream.send(sent[at : at + 1])
            await asyncio.sleep(DRIP_SECONDS)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await task


async def problem(downstream: Downstream, status: int) -> str:
    """Read a problem document and return its detail."""
    answer = await downstream.answer()
    body = await answer.to_end()
    assert (answer.head.status, answer.end) == (status, End.COMPLETE), body
    return str(json.loads(body)["detail"])


@pytest.mark.parametrize("before", [0, 1], ids=["first request", "second request"])
async def test_head_that_drips_is_refused(impatient: Gateway, stage: Stage, before: int) -> None:
    scene = stage.scene(OK)
    async with Downstream(impatient.port) as downstream:
        for _ in range(before):
            await downstream.ask("/plain", headers=scene.headers)
            await (await downstream.answer()).to_end()
        async with dripping(downstream, b"GET /plain HTTP/1.1\r\nHost: test\r\nX-Slow: " + b"x" * 10_000):
            assert await problem(downstream, 408) == f"the head of the request took more than {HEAD_SECONDS} s"
            await downstream.ended()
    assert len(scene.requests) == before


async def test_head_that_stalls_is_refused_and_one_that_ends_in_time_is_served(impatient: Gateway, stage: Stage) -> None:
    scene = stage.scene(OK)
    async with Downstream(impatient.port) as slow, Downstream(impatient.port) as stopped:
        await stopped.send(b"GET /plain HT")
        await slow.send(b"GET /plain HTTP/1.1\r\nHost: test\r\n")
        await asyncio.sleep(HEAD_SECONDS / 8)
        await slow.send("".join(f"{name}: {value}\r\n" for name, value in scene.headers).encode() + b"\r\n")
        assert (await slow.answer()).head.status == 200
        await problem(stopped, 408)


@pytest.mark.parametrize("sent", [b"", b"\r\n"], ids=["nothing", "an empty line"])
async def test_connection_without_a_request_is_closed(impatient: Gateway, sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with Downstream(impatient.port) as downstream:
        await downstream.send(sent)
        assert await downstream.ended() is End.CUT_SHORT
        assert loop.time() - begun > KEEPALIVE_SECONDS / 2
        assert not downstream.buffer


async def test_answer_that_takes_longer_than_a_head_may_is_not_cut(impatient: Gateway, stage: Stage) -> None:
    async def late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2 * max(HEAD_SECONDS, KEEPALIVE_SECONDS))
        writer.write(OK)

    scene = stage.scene(Act(late))
    async with Downstream(impatient.port) as downstream:
        await downstream.ask("/plain", headers=scene.headers)
        await downstream.send(b"GET /pl")  # the next request begins meanwhile
        assert await (await downstream.answer()).to_end() == b"ok"


async def idle(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", ["/upload", "/upload/kept"])
@pytest.mark.parametrize("fields", [[], [("Idempotency-Key", "1")]], ids=["plain", "key"])
async def test_upstream_that_reads_nothing_of_a_body_is_abandoned(
    impatient: Gateway, stage: Stage, path: str, fields: list[tuple[str, str]]
) -> None:
    scene = stage.scene(Act(idle), read_body=False)
    async with Downstream(impatient.port) as downstream:
        sending = asyncio.create_task(downstream.ask(path, "POST", [*scene.headers, *fields], b"x" * 12_000_000))
        try:
            assert (await downstream.answer("POST")).head.status == 504
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("path", ["/plain", "/kept"])
@pytest.mark.parametrize("framing", [("Content-Length", "10000"), ("Transfer-Encoding", "chunked")], ids=["length", "chunked"])
async def test_body_that_drips_is_refused_and_frees_its_upstream(
    impatient: Gateway, stage: Stage, path: str, framing: tuple[str, str]
) -> None:
    scene = stage.scene(Act(swallow), read_body=False)
    async with Downstream(impatient.port) as downstream:
        await downstream.ask(path, "POST", [*scene.headers, framing])
        body = b"x" * 10_000 if framing[0] == "Content-Length" else chunk(b"x") * 2_000
        async with dripping(downstream, body):
            assert "fewer than 256 bytes arrived within 0.4 s" in await problem(downstream, 408)
            await scene.left()
    assert len(scene.requests) == 1


async def test_body_that_stalls_after_much_data_is_refused(impatient: Gateway, stage: Stage) -> None:
    scene = stage.scene(Act(swallow), read_body=False)
    async with Downstream(impatient.port) as downstream:
        await downstream.ask("/plain", "POST", [*scene.headers, ("Content-Length", "1000000")])
        await downstream.send(b"x" * 100_000)
        await problem(downstream, 408)
        await scene.left()


async def test_body_that_keeps_coming_may_take_longer_than_its_time_limit(impatient: Gateway, stage: Stage) -> None:
    scene, piece, count = stage.scene(OK), b"x" * 300, 18
    async with Downstream(impatient.port) as downstream:
        await downstream.ask("/steady", "POST", [*scene.headers, ("Content-Length", str(count * len(piece)))])
        for _ in range(count):
            await downstream.send(piece)
            await asyncio.sleep(1.2 * STEADY_SECONDS / count)
        assert (await downstream.answer()).head.status == 200
    assert scene.requests[0].body == count * piece


async def test_client_is_not_refused_for_an_upstream_that_reads_slowly(impatient: Gateway, stage: Stage) -> None:
    size = 8 * 2**20

    async def take_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1.2 * STEADY_SECONDS)
        await reader.readexactly(size)
        writer.write(OK)

    scene = stage.scene(Act(take_slowly), read_body=False)
    async with Downstream(impatient.port) as downstream:
        await downstream.ask("/steady", "POST", [*scene.headers, ("Content-Length", str(size))])
        await downstream.send(b"x" * size)
        assert (await downstream.answer()).head.status == 200


async def test_route_without_the_limit_waits(impatient: Gateway, stage: Stage) -> None:
    scene = stage.scene(OK)
    async with Downstream(impatient.port) as downstream:
        await downstream.ask("/patient", "POST", [*scene.headers, ("Content-Length", "2")])
        await downstream.send(b"x")
        await asyncio.sleep(1.5 * BODY_SECONDS)
        await downstream.send(b"y")
        assert (await downstream.answer()).head.status == 200
    assert scene.requests[0].body == b"xy"
