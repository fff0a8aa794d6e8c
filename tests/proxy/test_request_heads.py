"""For any bytes in a request's head, the gateway answers with an error or relays what our own parser reads too; it survives."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kit.downstream import Downstream, FramingError
from tests.kit.routed_gateway import Gateway, running
from tests.kit.stage import Stage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

BATCHES, AT_ONCE = 30, 25
HEALTH = list(HealthCheck)
PIECES = [
    b"GET", b"POST", b"OPTIONS", b"CONNECT", b"get", b" ", b"  ", b"\t", b"/", b"/plain", b"/plain/../base", b"%2e%2e/", b"//",
    b"*", b"http://a/plain", b"?", b"#", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b":", b": ",
    b" :", b"Host: a", b"Host", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +1", b"Content-Length",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Transfer-Encoding", b"Connection: close", b"Connection: upgrade",
    b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"X: y", b"X_Y: z", b"\x00", b"\x7f", b"\xff\xfe", "七".encode(),
    b"0\r\n\r\n", b"5\r\nhello\r\n", b"hello", b";a=b",
]  # fmt: skip
"""The parts of requests, and bytes that break them."""

loose = st.lists(st.sampled_from(PIECES) | st.binary(max_size=4), max_size=20).map(b"".join)
lines = st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map(b"".join), max_size=6).map(b"\r\n".join)
begun = st.builds(lambda rest: b"GET /plain HTTP/1.1\r\nHost: a\r\n" + rest, lines)
posted = st.builds(lambda fields, rest: b"POST /plain HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n" + rest, lines, loose)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fuzzed(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Run a gateway with short timeouts. At its end it must exit with 0 and must not have logged a stack trace."""
    routes = [{"path": "/plain", "upstream": stage.url, "body_timeout_seconds": 0.2} | stage.trust]
    limits = {"head_seconds": 0.2, "keepalive_seconds": 0.2, "drain_seconds": 1}
    async with running(routes, tmp_path_factory.mktemp("fuzzed"), **limits) as subject:
        yield subject


async def statuses(port: int, sent: bytes) -> list[int]:
    """Send the bytes and return the statuses of all answers up to the end of the connection. Nothing else may come."""
    found = []
    async with Downstream(port) as downstream:
        try:
            await downstream.send(sent)
            while True:
                answer = await downstream.answer()
                found.append(answer.head.status)
                await answer.to_end()
        except (FramingError, ConnectionError):
            assert downstream.end, sent
            assert not downstream.buffer, (sent, bytes(downstream.buffer))
    return found


async def test_any_bytes_are_refused_or_relayed(fuzzed: Gateway) -> None:
    allowed = {*range(400, 500), 501, 505}  # the upstream answers 404 to unknown requests
    loop = asyncio.get_running_loop()

    @settings(max_examples=BATCHES, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=HEALTH)
    @given(st.lists(loose | lines | begun | posted, min_size=AT_ONCE, max_size=AT_ONCE))
    def hold(all_sent: list[bytes]) -> None:
        async def send_all() -> list[list[int]]:
            return await asyncio.gather(*(statuses(fuzzed.port, sent) for sent in all_sent))

        for sent, found in zip(all_sent, asyncio.run_coroutine_threadsafe(send_all(), loop).result(60), strict=True):
            assert set(found) <= allowed, (sent, found)

    await asyncio.to_thread(hold)
    assert fuzzed.process.running
    assert "Unhandled exception" not in fuzzed.text()
    assert '"level": "error"' not in fuzzed.text()
