"""Upstreams behind TLS: every byte, bounded reads, and an end that is true, on the loop of these tests and on the gateway's."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop

from gateway.http.read_buffer import READ_BYTES
from gateway.http.tls_transport import TlsTransport
from gateway.http.upstream import open_session
from tests.gateway.receiving import Recorder, attached
from tests.kit.blocking_upstream import BlockingUpstream, Connection
from tests.kit.certificates import Authority
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Disconnect, Flood, Pause, ScriptedUpstream, Silence, Step, chunk
from tests.kit.waiting import GUARD_SECONDS, settle

BODY = b"".join(b"data: %07d %s\n\n" % (number, b"." * 1000) for number in range(3000))  # 3 MB
LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "length": [LENGTH_HEAD % len(BODY), BODY],
    "chunked": [CHUNKED_HEAD, chunk(BODY) + LAST_CHUNK],
    "close": [CLOSE_HEAD, BODY],
}

LOOPS: dict[str, Callable[[Coroutine[Any, Any, None]], None]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}
loops = pytest.mark.parametrize("run", LOOPS.values(), ids=LOOPS)


@asynccontextmanager
async def response_to(authority: Authority, *script: Step) -> AsyncIterator[tuple[aiohttp.ClientResponse, ScriptedUpstream]]:
    """Send a request with the gateway's client session to an HTTPS upstream that plays `script`, up to the head of its response."""
    async with (
        ScriptedUpstream(script, tls=authority.issue("upstream").server_context()) as upstream,
        open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
        asyncio.timeout(2 * GUARD_SECONDS),
        session.get(upstream.url, ssl=ssl.create_default_context(cafile=authority.file)) as response,
    ):
        yield response, upstream


def hang_up_behind(*answer: bytes) -> Callable[[Connection], None]:
    """Play an upstream whose answer, close_notify and FIN leave at once."""

    def play(connection: Connection) -> None:
        connection.read_head()
        connection.end(b"".join(answer))

    return play


@loops
@pytest.mark.parametrize("paused", [False, True], ids=["at once", "after a pause"])
@pytest.mark.parametrize("framing", ANSWERS)
def test_every_byte_comes_from_an_upstream_that_closes_behind_its_body(
    authority: Authority, framing: str, paused: bool, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def follow() -> None:
        context = ssl.create_default_context(cafile=authority.file)
        async with open_session(keepalive_seconds=4, max_header_bytes=16_384) as session, asyncio.timeout(2 * GUARD_SECONDS):
            for _ in range(5):
                async with session.get(upstream.url, ssl=context) as response:
                    receiver = attached(response, Recorder(pause_after=1 if paused else None))
                    if paused:
                        await receiver.until(lambda each=receiver: each.paused)
                        await asyncio.sleep(0.05)  # whatever the loop would read by itself it has read by now
                        receiver.resume()
                    assert await receiver.until_over() == "ended"
                    assert receiver.body == BODY

    server = BlockingUpstream(hang_up_behind(*ANSWERS[framing]), authority.issue("upstream").server_context())
    with server.running() as upstream:
        run(follow())


@loops
@pytest.mark.parametrize("framing", ANSWERS)
def test_receiver_that_pauses_loses_nothing_when_the_upstream_closes_meanwhile(
    authority: Authority, framing: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def follow() -> None:
        async with response_to(authority, *ANSWERS[framing], Disconnect()) as (response, _):
            receiver = attached(response, Recorder(pause_after=1))
            await receiver.until(lambda: receiver.paused)
            await settle()
            held = len(receiver.body)
            await asyncio.sleep(0.2)  # whatever the loop would read by itself it has read by now
            assert len(receiver.body) == held
            receiver.resume()
            assert await receiver.until_over() == "ended"
            assert receiver.body == BODY

    run(follow())


ENDS: dict[str, tuple[list[Step], str]] = {
    "close-delimited, announced": ([CLOSE_HEAD, b"data: 1\n\n", Disconnect()], "ended"),
    "close-delimited, unannounced": ([CLOSE_HEAD, b"data: 1\n\n", Disconnect(unannounced=True)], "lost"),
    "close-delimited, reset": ([CLOSE_HEAD, b"data: 1\n\n", Disconnect(reset=True)], "lost"),
    "whole length, unannounced": ([LENGTH_HEAD % 9, b"data: 1\n\n", Disconnect(unannounced=True)], "ended"),
    "short of its length, announced": ([LENGTH_HEAD % 10, b"data: 1\n\n", Disconnect()], "lost"),
    "all chunks, unannounced": ([CHUNKED_HEAD, chunk(b"data: 1\n\n") + LAST_CHUNK, Disconnect(unannounced=True)], "ended"),
    "before the last chunk, announced": ([CHUNKED_HEAD, chunk(b"data: 1\n\n"), Disconnect()], "lost"),
}


@loops
@pytest.mark.parametrize("attach_late", [False, True], ids=["attached at once", "attached when it is over"])
@pytest.mark.parametrize("end", ENDS)
def test_end_is_determined_by_framing_and_tls(
    authority: Authority, end: str, attach_late: bool, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    script, expected = ENDS[end]

    async def follow() -> None:
        begin = Pause()
        async with response_to(authority, script[0], script[1], begin, script[2]) as (response, _):
            assert response._protocol is not None
            if attach_late:
                begin.go()
                async with asyncio.timeout(GUARD_SECONDS):
                    while response._protocol.transport is not None:
                        await asyncio.sleep(0.001)
            receiver = attached(response, Recorder())
            if not attach_late:
                await receiver.until(lambda: receiver.body == b"data: 1\n\n")
                begin.go()
            assert await receiver.until_over() == expected
            assert receiver.body == b"data: 1\n\n"

    run(follow())


@loops
def test_reads_are_bounded_and_a_flat_out_upstream_gives_up_its_turn(
    authority: Authority, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def follow() -> None:
        async with response_to(authority, EVENT_STREAM_HEAD, Flood(b"x" * 500_000, count=8), LAST_CHUNK) as (response, _):
            receiver = attached(response, Recorder())
            assert await receiver.until_over() == "ended"
            assert len(receiver.body) == 4_000_000
            assert max(map(len, receiver.chunks[1:])) <= READ_BYTES + 2**14, "one read, and the record of which the read before had a part"

    run(follow())


@loops
def test_upstream_that_is_paused_has_to_wait(authority: Authority, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def follow() -> None:
        block, count = b"data: " + b"x" * 16_376 + b"\n\n", 2000  # 32 MiB: more than the kernel keeps between the two
        async with response_to(authority, EVENT_STREAM_HEAD, Flood(block, count), LAST_CHUNK) as (response, upstream):
            receiver = attached(response, Recorder(pause_after=1))
            await receiver.until(lambda: receiver.paused)
            sent = -1
            while sent != upstream.sent_bytes:  # until nothing moves any more
                sent = upstream.sent_bytes
                await asyncio.sleep(0.1)
            assert sent < count * len(block) / 2
            receiver.resume()
            assert await receiver.until_over() == "ended"
            assert receiver.body == block * count

    run(follow())


@loops
def test_connection_serves_the_next_request(authority: Authority, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def follow() -> None:
        context = ssl.create_default_context(cafile=authority.file)
        async with (
            ScriptedUpstream(
                [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"], tls=authority.issue("upstream").server_context()
            ) as upstream,
            open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
        ):
            protocols = []
            for _ in range(2):
                async with session.get(upstream.url, ssl=context) as response:
                    protocols.append(response._protocol)
                    assert await response.read() == b"ok"
            assert protocols[0] is protocols[1]
            assert isinstance(protocols[0].transport, TlsTransport)

    run(follow())


@loops
def test_answer_that_is_left_resets_its_connection_at_once(authority: Authority, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def follow() -> None:
        async with response_to(authority, EVENT_STREAM_HEAD, Silence()) as (response, upstream):
            attached(response, Recorder())
            response.close()
            async with asyncio.timeout(GUARD_SECONDS):
                await upstream.requests[0].left.wait()

    run(follow())


@loops
def test_handshake_that_hangs_is_given_up_in_the_time_for_connecting(
    authority: Authority, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def follow() -> None:
        left = asyncio.Event()

        async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            left.set()

        async with (
            await asyncio.start_server(ignore, "127.0.0.1", 0) as server,
            open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
            asyncio.timeout(GUARD_SECONDS),
        ):
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(TimeoutError):
                await session.get(f"https://127.0.0.1:{port}/", timeout=aiohttp.ClientTimeout(total=None, sock_connect=0.2))
            await left.wait()

    run(follow())


@loops
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "plain HTTP"])
def test_upstream_that_does_not_speak_tls_is_an_error_of_the_connection(
    answer: bytes, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def follow() -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)
            writer.close()

        async with (
            await asyncio.start_server(refuse, "127.0.0.1", 0) as server,
            open_session(keepalive_seconds=4, max_header_bytes=16_384) as session,
            asyncio.timeout(GUARD_SECONDS),
        ):
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"https://127.0.0.1:{port}/")

    run(follow())
