"""Whatever a request target is made of, the upstream sees it as it came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kit.downstream import Answer, Downstream
from tests.kit.gateway import serving
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

TARGETS = [
    b'/{x}"|^`\\<>[]/y?q={x}"|^`\\<>[]',
    "/七夕/ü?x=é&y=%C3%A9".encode(),
    b"/%C3%A9%zz%?%",
    b"/caf\xe9?not=\xff-utf-8",
    b"/a;b=c//d?e=+%20'(*)",
    b"/ends?",
]
OPEN = b"data: x\n\n"


@asynccontextmanager
async def gateway(tmp_path: Path, mode: str, *paths: str, ends: bool = True) -> AsyncIterator[tuple[Downstream, ScriptedUpstream]]:
    script = [EVENT_STREAM_HEAD, chunk(OPEN), LAST_CHUNK] if ends else [EVENT_STREAM_HEAD, chunk(OPEN), Silence()]
    async with ScriptedUpstream(script) as upstream:
        routes = [{"path": path, "upstream": upstream.url, "mode": mode} for path in paths or ("/",)]
        async with asyncio.timeout(2 * GUARD_SECONDS), serving(routes, tmp_path) as port, Downstream(port) as downstream:
            yield downstream, upstream


def request(target: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%s %s HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n%s\r\n" % (method, target, fields)


def target_of(asked: Asked) -> bytes:
    return asked.target.encode("latin-1")


async def whole(downstream: Downstream) -> Answer:
    answer = await downstream.answer()
    await answer.to_end()
    assert answer.head.status == 200, bytes(answer.body)
    return answer


@pytest.mark.parametrize("mode", ["direct", "resumable"])
async def test_target_passes_as_it_came(tmp_path: Path, mode: str) -> None:
    async with gateway(tmp_path, mode) as (downstream, upstream):
        for target in TARGETS:
            await downstream.send(request(target))
            await whole(downstream)
        assert [target_of(asked) for asked in upstream.requests] == TARGETS


@pytest.mark.parametrize("mode", ["direct", "resumable"])
async def test_target_passes_as_it_came_with_a_body(tmp_path: Path, mode: str) -> None:
    """One that is there with the head, and one that comes later."""
    targets = [target for target in TARGETS if b"\xff" not in target]
    async with gateway(tmp_path, mode) as (downstream, upstream):
        for target in targets:
            await downstream.send(request(target, b"Content-Length: 2\r\n", b"POST") + b"ab")
            await whole(downstream)
            await downstream.send(request(target, b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", b"POST"))
            await send_body(downstream)
            await whole(downstream)
        assert [target_of(asked) for asked in upstream.requests] == [target for target in targets for _ in range(2)]
        assert {asked.body for asked in upstream.requests} == {b"ab"}


async def send_body(downstream: Downstream) -> None:
    """Send the body when the gateway asks for it."""
    while b"100 Continue\r\n\r\n" not in downstream.buffer:
        assert await downstream.fill()
    downstream.buffer.clear()
    await downstream.send(chunk(b"ab") + LAST_CHUNK)


async def test_target_that_is_not_utf8_is_refused_with_a_body(tmp_path: Path) -> None:
    async with gateway(tmp_path, "direct") as (downstream, upstream):
        await downstream.send(request(TARGETS[3], b"Content-Length: 2\r\n", b"POST") + b"ab")
        answer = await downstream.answer()
        assert (answer.head.status, b"percent-encode" in await answer.to_end()) == (400, True)
        assert not upstream.requests


async def test_shared_stream_is_asked_for_with_the_target_as_it_came(tmp_path: Path) -> None:
    async with gateway(tmp_path, "shared", ends=False) as (first, upstream):
        for target in TARGETS:
            async with Downstream(first._port) as downstream:
                await downstream.send(request(target))
                assert (await downstream.answer()).head.status == 200
        assert [target_of(asked) for asked in upstream.requests] == TARGETS


async def test_streams_of_targets_that_are_only_spelled_alike_are_not_shared(tmp_path: Path) -> None:
    spellings = ["/é?a={b}".encode(), b"/%C3%A9?a={b}", b"/%c3%a9?a={b}", b"/%C3%A9?a=%7Bb%7D"]
    async with gateway(tmp_path, "shared", ends=False) as (first, upstream):
        for target in [*spellings, *spellings]:
            async with Downstream(first._port) as downstream:
                await downstream.send(request(target))
                assert (await downstream.answer()).head.status == 200
        assert [target_of(asked) for asked in upstream.requests] == spellings


@pytest.mark.parametrize("step", [1, 7, 11])
async def test_head_beyond_ascii_passes_in_pieces_of_any_size(tmp_path: Path, step: int) -> None:
    sent = request("/é/%C3%A9?七".encode(), "X-Name: Zoë Ö é GET /é\r\n".encode())
    async with gateway(tmp_path, "direct") as (downstream, upstream):
        for _ in range(2):
            for start in range(0, len(sent), step):
                await downstream.send(sent[start : start + step])
                await asyncio.sleep(0)
            await whole(downstream)
        for asked in upstream.requests:
            assert target_of(asked) == "/é/%C3%A9?七".encode()
            assert (asked.header("X-Name") or "").encode("latin-1") == "Zoë Ö é GET /é".encode()


async def test_body_beyond_ascii_that_looks_like_a_request_passes(tmp_path: Path) -> None:
    body = "GET /é HTTP/1.1\r\n\r\n".encode() * 100
    async with gateway(tmp_path, "direct") as (downstream, upstream):
        await downstream.send(request(b"/", b"Content-Length: %d\r\n" % len(body), b"POST"))
        for start in range(0, len(body), 500):
            await downstream.send(body[start : start + 500])
            await asyncio.sleep(0)
        await whole(downstream)
        assert upstream.requests[0].body == body


@pytest.mark.parametrize("guarded", ["/caf%C3%A9", "/caf%c3%a9"])
async def test_target_that_an_upstream_may_take_for_one_of_another_route_is_refused(tmp_path: Path, guarded: str) -> None:
    async with gateway(tmp_path, "direct", "/", guarded) as (downstream, upstream):
        await downstream.send(request("/café/x".encode()))
        answer = await downstream.answer()
        await answer.to_end()
        assert answer.head.status == 400
        assert not upstream.requests
