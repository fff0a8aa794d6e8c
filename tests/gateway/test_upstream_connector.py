"""How the gateway gets its connections to upstreams: kept ones, new ones, and those to an upstream that is down."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict

from gateway.http.upstream import open_session
from gateway.http.upstream_client import UpstreamAnswer, UpstreamClient
from gateway.http.upstream_connector import UpstreamConnector
from gateway.http.upstream_errors import Drained
from tests.kit.stack import free_ports, refusing
from tests.kit.upstream import Act, Disconnect, Pause, Script, ScriptedUpstream
from tests.kit.waiting import GUARD_SECONDS, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENT = aiohttp.ClientTimeout(total=None, connect=GUARD_SECONDS, sock_connect=GUARD_SECONDS)
HASTY = aiohttp.ClientTimeout(total=None, sock_connect=GUARD_SECONDS)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(keepalive_seconds=GUARD_SECONDS, max_header_bytes=16_384) as session:
        yield session


def connector_of(session: aiohttp.ClientSession) -> UpstreamConnector:
    assert isinstance(session.connector, UpstreamConnector)
    return session.connector


async def ask(
    session: aiohttp.ClientSession, upstream: str, method: str = "GET", data: object = None, timeout: aiohttp.ClientTimeout = PATIENT
) -> UpstreamAnswer:
    async with asyncio.timeout(2 * GUARD_SECONDS):
        return await UpstreamClient(session).ask(method, upstream, "/", fields=CIMultiDict(), data=data, timeout=timeout)


async def parts() -> AsyncIterator[bytes]:
    yield b"in "
    yield b"parts"


async def fill_pool(session: aiohttp.ClientSession, upstream: ScriptedUpstream, count: int, answered: Pause) -> None:
    """Leaves `count` kept connections. The upstream answers none before all have been asked for."""
    asking = [asyncio.create_task(ask(session, upstream.url)) for _ in range(count)]
    await upstream.wait_for_requests(count)
    answered.go()
    for answer in await asyncio.gather(*asking):
        answer.close()


async def test_idempotent_request_is_repeated_until_a_new_connection_is_tried(session: aiohttp.ClientSession) -> None:
    pause = Pause()
    stale: list[Script] = [[pause, OK]] * 5 + [[Disconnect()]] * 5
    async with ScriptedUpstream(*stale, [OK]) as upstream:
        await fill_pool(session, upstream, 5, pause)
        assert (await ask(session, upstream.url)).status == 200
        assert len(upstream.requests) == 11, "five kept connections were stale, the sixth was new"


async def test_one_request_after_another_uses_one_of_the_kept_connections(session: aiohttp.ClientSession) -> None:
    pause, used = Pause(), set()

    async def note_connection(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used.add(writer.get_extra_info("peername"))
        writer.write(OK)

    async with ScriptedUpstream(*[[pause, OK]] * 3, [Act(note_connection)]) as upstream:
        await fill_pool(session, upstream, 3, pause)
        for _ in range(3):
            (await ask(session, upstream.url)).close()
        assert len(used) == 1, "the others grow old"


async def test_request_on_a_new_connection_is_not_repeated(session: aiohttp.ClientSession) -> None:
    async with ScriptedUpstream([Disconnect()]) as upstream:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(session, upstream.url)
        assert len(upstream.requests) == 1


async def test_post_is_not_repeated_when_a_kept_connection_ends_behind_it(session: aiohttp.ClientSession) -> None:
    pause = Pause()
    pause.go()
    async with ScriptedUpstream([OK], [Disconnect()]) as upstream:
        await fill_pool(session, upstream, 1, pause)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await ask(session, upstream.url, "POST", b"pay 5 euros")
        assert len(upstream.requests) == 2


@pytest.mark.parametrize("sent", [b"", OK], ids=["its end", "an unsolicited answer"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_kept_connection_on_which_something_has_arrived_is_not_used(
    session: aiohttp.ClientSession, sent: bytes, streamed: bool
) -> None:
    """Even when the event loop has had no time to read it."""
    writers: list[asyncio.StreamWriter] = []

    async def keep(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    async with ScriptedUpstream([OK, Act(keep)], [OK]) as upstream:
        first = await ask(session, upstream.url)
        sock = writers[0].get_extra_info("socket")
        if sent:
            writers[0].write(sent)  # goes to the kernel at once
        else:
            sock.shutdown(1)
        answer = await ask(session, upstream.url, "POST", parts() if streamed else b"in parts")
        assert answer.status == 200
        assert answer._protocol is not first._protocol
        assert [each.body for each in upstream.requests] == [b"", b"in parts"]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_upstream_that_is_down_is_tried_again_for_every_method(session: aiohttp.ClientSession, method: str, streamed: bool) -> None:
    [port] = free_ports(1)
    upstream = ScriptedUpstream([OK], port=port)
    asking = asyncio.create_task(ask(session, f"http://127.0.0.1:{port}", method, parts() if streamed else b"in parts"))
    await until_waiting(session, 1)
    async with upstream:
        assert (await asking).status == 200
        assert [each.body for each in upstream.requests] == [b"in parts"]
    assert not connector_of(session)._outages


async def test_requests_for_an_upstream_that_is_down_share_the_attempts(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    attempt = aiohttp.TCPConnector._create_connection

    async def count(self: aiohttp.TCPConnector, *args: object) -> object:
        nonlocal attempts
        attempts += 1
        return await attempt(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", count)
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    first = asyncio.create_task(ask(session, url))
    await until_waiting(session, 1)
    others = [asyncio.create_task(ask(session, url)) for _ in range(100)]
    await until_waiting(session, 101)
    before = attempts
    await until(lambda: attempts >= before + 3)
    assert attempts - before < 10
    async with ScriptedUpstream([OK], port=port):
        assert {answer.status for answer in await asyncio.gather(first, *others)} == {200}


async def test_request_fails_with_the_error_of_the_newest_attempt_when_its_time_is_up(session: aiohttp.ClientSession) -> None:
    timeout = aiohttp.ClientTimeout(total=None, connect=0.2, sock_connect=GUARD_SECONDS)
    with refusing() as nowhere:
        begun = asyncio.get_running_loop().time()
        results = await asyncio.gather(*(ask(session, nowhere, timeout=timeout) for _ in range(3)), return_exceptions=True)
        assert asyncio.get_running_loop().time() - begun >= 0.2
    assert [type(result) for result in results] == [aiohttp.ClientConnectorError] * 3
    assert len({id(result) for result in results}) == 3
    assert not connector_of(session)._outages


async def test_request_that_is_cancelled_leaves_the_attempts_to_others(session: aiohttp.ClientSession) -> None:
    [port] = free_ports(1)
    first, second = (asyncio.create_task(ask(session, f"http://127.0.0.1:{port}")) for _ in range(2))
    await until_waiting(session, 2)
    first.cancel()
    async with ScriptedUpstream([OK], port=port) as upstream:
        assert (await second).status == 200
        assert len(upstream.requests) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_requests_that_wait_end_when_the_gateway_drains(session: aiohttp.ClientSession) -> None:
    with refusing() as nowhere:
        waiting = [asyncio.create_task(ask(session, nowhere)) for _ in range(2)]
        await until_waiting(session, 2)
        connector_of(session).stop_waiting()
        late = asyncio.create_task(ask(session, nowhere))
        for each in (*waiting, late):
            with pytest.raises(Drained):
                await each


class Moving(AbstractResolver):
    """Resolves every name to `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host=self.address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("timeout", [PATIENT, HASTY], ids=["within the request", "for the next request"])
async def test_address_is_resolved_anew_when_a_connection_to_it_failed(
    session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout
) -> None:
    resolver = connector_of(session)._resolver = Moving("127.0.0.2")
    async with ScriptedUpstream([OK]) as upstream:
        url = f"http://moving.test:{upstream.port}"
        asking = asyncio.create_task(ask(session, url, timeout=timeout))
        if timeout is HASTY:
            with pytest.raises(aiohttp.ClientConnectorError):
                await asking
            resolver.address = "127.0.0.1"
            asking = asyncio.create_task(ask(session, url, timeout=timeout))
        else:
            await until_waiting(session, 1)
            resolver.address = "127.0.0.1"
        assert (await asking).status == 200


def waiting(session: aiohttp.ClientSession) -> int:
    return sum(outage.waiting for outage in connector_of(session)._outages.values())


async def until_waiting(session: aiohttp.ClientSession, count: int) -> None:
    """Wait until this number of requests wait for an upstream that is down."""
    await until(lambda: waiting(session) == count)
