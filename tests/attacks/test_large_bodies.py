"""Clients that send large bodies and hold back the last byte, or whose upstream takes none: what is here of them is bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from tests.kit.downstream import Answer, Downstream
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Act, Asked, Disconnect, Script, ScriptedUpstream, chunk, swallow
from tests.kit.waiting import GUARD_SECONDS

CONNECTIONS = 60
MEBIBYTES = 1024 * 1024
LIMIT_BYTES = 32 * MEBIBYTES
"""For all bodies; a client may have half of it."""
ATTACKERS = [f"127.0.0.{number}" for number in range(2, 6)]
KEY = ("Idempotency-Key", "large")
EVENTS = b"data: 1\n\n"


class Upstream:
    """Takes bodies and says nothing at `/large`, takes no more of them than fits into the buffers on the way at `/silent`, and answers
    elsewhere."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    def __call__(self, asked: Asked) -> Script:
        if asked.target.startswith("/silent"):
            return [Act(self._idle), Disconnect()]
        return [Act(swallow)] if asked.target.startswith("/large") else [EVENT_STREAM_HEAD, chunk(EVENTS) + LAST_CHUNK]

    async def _idle(self, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await self.leaves.wait()


def takes_body(asked: Asked) -> bool:
    return not asked.target.startswith(("/silent", "/large"))


@contextlib.asynccontextmanager
async def gateway_and_upstream(
    directory: Path, play: Callable[[Asked], Script], **settings: object
) -> AsyncIterator[tuple[Gateway, ScriptedUpstream]]:
    async with ScriptedUpstream(play, read_body=takes_body) as upstream:
        routes = [
            {"path": "/", "upstream": upstream.url, "mode": "resumable"},
            {"path": "/silent/direct", "upstream": upstream.url},
            {"path": "/small", "upstream": upstream.url, "mode": "resumable", "max_kept_body_bytes": 1000},
        ]
        async with running(routes, directory, plain=True, max_held_body_bytes=LIMIT_BYTES, **settings) as gateway:
            yield gateway, upstream


async def post(gateway: Gateway, target: str, body: bytes, fields: Sequence[tuple[str, str]] = (), source: str = "127.0.0.1") -> Answer:
    async with Downstream(gateway.port, source=source) as client:
        await client.ask(target, "POST", fields, body)
        answer = await client.answer("POST")
        await answer.to_end()
        return answer


class Attack:
    """Sends bodies of `body_bytes` less a byte as far as the gateway takes them, one on each connection."""

    def __init__(self, gateway: Gateway, body_bytes: int) -> None:
        self._gateway = gateway
        self._body_bytes = body_bytes
        self.statuses: list[int] = []
        self.sent_bytes = 0

    @contextlib.asynccontextmanager
    async def running(self, target: str, fields: Sequence[tuple[str, str]], sources: Sequence[str]) -> AsyncIterator[None]:
        """Return when nothing more is taken of any body, and each has been refused or stands still; in the end all leave."""
        self.before_bytes = self._gateway.memory()
        async with contextlib.AsyncExitStack() as stack:
            sending = []
            for number in range(CONNECTIONS):
                client = await stack.enter_async_context(Downstream(self._gateway.port, source=sources[number % len(sources)]))
                own = [(name, f"{value}-{number}") for name, value in fields]
                sending.append(asyncio.create_task(self._send(client, target, own)))
            try:
                await self._until_still(sending)
                yield
            finally:
                for each in sending:
                    each.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    async def _send(self, client: Downstream, target: str, fields: Sequence[tuple[str, str]]) -> None:
        await client.ask(target, "POST", [*fields, ("Content-Length", str(self._body_bytes))])
        answering = asyncio.create_task(client.answer("POST"))
        piece = b"x" * (256 * 1024)
        try:
            left = self._body_bytes - 1
            while left and not answering.done():
                sent = piece[:left]
                with contextlib.suppress(ConnectionError):
                    await client.send(sent)
                left -= len(sent)
                self.sent_bytes += len(sent)
            self.statuses.append((await answering).head.status)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _until_still(self, sending: Sequence["asyncio.Task[None]"]) -> None:
        async with asyncio.timeout(10 * GUARD_SECONDS):
            before = -1
            while self.sent_bytes != before and not all(each.done() for each in sending):
                before = self.sent_bytes
                await asyncio.sleep(1)


TARGETS = {
    "kept": ("/large", (), 4 * MEBIBYTES),
    "kept, with a key": ("/large", (KEY,), 8 * MEBIBYTES),
    "kept, and not taken": ("/silent", (), 16 * MEBIBYTES),
    "direct, and not taken": ("/silent/direct", (), 16 * MEBIBYTES),
}
"""All are many times the limit, and those that are not taken more than the kernel takes on the way."""


@pytest.mark.parametrize("sources", [ATTACKERS[:1], ATTACKERS], ids=["one client", "four clients"])
@pytest.mark.parametrize("attack", TARGETS)
async def test_large_bodies_hold_no_more_than_the_limit_and_others_are_served(tmp_path: Path, attack: str, sources: list[str]) -> None:
    target, fields, body_bytes = TARGETS[attack]
    body = b"y" * 300_000
    play = Upstream()
    async with gateway_and_upstream(tmp_path, play) as (gateway, upstream):
        for _ in range(3):
            assert (await post(gateway, "/", body, [KEY])).head.status == 200
        attacking = Attack(gateway, body_bytes)
        async with attacking.running(target, fields, sources):
            held = await gateway.metric("gateway_held_body_bytes")
            share = LIMIT_BYTES / 2 if len(sources) == 1 else LIMIT_BYTES
            assert (held > 0) == (target != "/large" or fields != ())  # what the upstream takes is not held
            assert held <= share
            assert gateway.memory() - attacking.before_bytes < 3 * LIMIT_BYTES  # the allocator keeps some of what was let go for a second
            for own in ([], [("Idempotency-Key", "own")]):
                answer = await post(gateway, "/", body, own)
                assert answer.head.status == 200
                assert upstream.requests[-1].body == body
        assert set(attacking.statuses) <= {429, 503}
        play.leaves.set()  # a client that has left is not noticed before while its body is not taken
        async with asyncio.timeout(2 * GUARD_SECONDS):
            while await gateway.metric("gateway_held_body_bytes") or gateway.memory() - attacking.before_bytes > LIMIT_BYTES / 2:
                await asyncio.sleep(0.1)


async def test_connections_that_announce_a_body_and_send_nothing_hold_nothing(tmp_path: Path) -> None:
    async with gateway_and_upstream(tmp_path, Upstream()) as (gateway, _), contextlib.AsyncExitStack() as stack:
        for number in range(CONNECTIONS):
            client = await stack.enter_async_context(Downstream(gateway.port))
            await client.ask("/", "POST", [("Content-Length", str(16 * MEBIBYTES - 1)), ("Idempotency-Key", str(number))])
            await client.send(b"x")
        async with asyncio.timeout(GUARD_SECONDS):
            while await gateway.metric("gateway_held_body_bytes") < CONNECTIONS:
                await asyncio.sleep(0.05)
        assert await gateway.metric("gateway_held_body_bytes") == CONNECTIONS
        assert (await post(gateway, "/", b"y" * 1_000_000, [KEY])).head.status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("fields", [(), (KEY,), (("Last-Event-ID", "7"),)], ids=["plain", "key", "last event id"])
async def test_body_that_is_too_long_to_be_kept_reaches_the_upstream_and_its_answer_is_not_kept(
    tmp_path: Path, fields: Sequence[tuple[str, str]], framing: str
) -> None:
    body = b"z" * 2_000_000
    async with gateway_and_upstream(tmp_path, Upstream()) as (gateway, upstream):
        for _ in range(2):
            async with Downstream(gateway.port) as client:
                if framing == "length":
                    await client.ask("/small", "POST", fields, body)
                else:
                    await client.ask("/small", "POST", [*fields, ("Transfer-Encoding", "chunked")])
                    await client.send(chunk(body[:500]) + chunk(body[500:1_000_000]) + chunk(body[1_000_000:]) + LAST_CHUNK)
                answer = await client.answer("POST")
                assert (answer.head.status, answer.head.value("Stream-Id")) == (200, None)
                assert await answer.to_end() == EVENTS
        assert [asked.body for asked in upstream.requests] == [body, body]
        told = [line for line in gateway.process.log() if line["event"] == "answer is not kept: the body of its request is too large"]
        assert [line["limit"] for line in told] == [1000, 1000]


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_stream_whose_body_went_up_while_it_came_is_continued_by_the_same_body(tmp_path: Path, framing: str) -> None:
    body = b"w" * 3_000_000
    async with gateway_and_upstream(tmp_path, Upstream()) as (gateway, upstream):
        authorization = ("Authorization", "Bearer w")

        async def ask(last_event_id: str = "", body: bytes = body) -> Answer:
            async with Downstream(gateway.port) as client:
                fields = [authorization, *([("Last-Event-ID", last_event_id)] if last_event_id else [])]
                if framing == "length":
                    await client.ask("/", "POST", fields, body)
                else:
                    await client.ask("/", "POST", [*fields, ("Transfer-Encoding", "chunked")])
                    await client.send(chunk(body) + LAST_CHUNK)
                answer = await client.answer("POST")
                await answer.to_end()
                return answer

        first = await ask()
        stream = first.head.value("Stream-Id")
        again = await ask(f"{stream}-0")
        assert (again.head.status, again.head.value("Stream-Id"), again.body) == (200, stream, first.body)
        assert (await ask(f"{stream}-0", body + b"!")).head.status == 422
        assert len(upstream.requests) == 1
