"""Bodies that are not HTTP: behind a request that is answered already, and in the read that ends a chunk."""

import asyncio
from pathlib import Path

import pytest

from tests.kit.downstream import AT_ONCE_SECONDS, Downstream, End
from tests.kit.routed_gateway import running
from tests.kit.upstream import Act, ScriptedUpstream, swallow

CHUNKED = b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSED = {404: b"POST /elsewhere HTTP/1.1\r\n", 405: b"TRACE /plain HTTP/1.1\r\n", 400: b"POST /plain#x HTTP/1.1\r\n"}


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("garbage", [b"planted\r\n", b"1\r\nx\r\n0\r\nplan ted: 1\r\n\r\n"])
async def test_garbage_behind_an_answer_ends_the_connection_and_is_one_line_in_the_log(tmp_path: Path, status: int, garbage: bytes) -> None:
    async with running([{"path": "/plain", "upstream": "http://127.0.0.1:9"}], tmp_path) as gateway, Downstream(gateway.port) as client:
        await client.send(REFUSED[status] + CHUNKED + b"5\r\nhello\r\n")
        assert (await client.answer()).head.status == status
        await client.send(garbage)
        await client.ended()
    log = (tmp_path / "gateway.log").read_text()
    assert '"level": "error"' not in log
    assert "plan" not in log


@pytest.mark.parametrize("mode", ["direct", "resumable"])
async def test_garbage_behind_the_end_of_a_chunk_is_refused_at_once(tmp_path: Path, mode: str) -> None:
    """The reader of the body is woken by the end of the chunk, and waits again when the garbage is known."""
    async with (
        ScriptedUpstream([Act(swallow)], read_body=False) as upstream,
        running([{"path": "/", "upstream": upstream.url, "mode": mode, "body_timeout_seconds": 0}], tmp_path) as gateway,
    ):
        for number in range(5):
            async with Downstream(gateway.port) as client, asyncio.timeout(AT_ONCE_SECONDS):
                await client.send(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n" + CHUNKED)
                while b"100 Continue" not in client.buffer:
                    await client.fill()
                await client.send(b"5\r\nhello")
                if mode == "direct":
                    await upstream.wait_for_requests(number + 1)
                await client.send(b"\r\nplanted\r\n")
                answer = await client.answer()
                await answer.to_end()
                assert (answer.head.status, answer.end) == (400, End.COMPLETE)
