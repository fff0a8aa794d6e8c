"""What one worker asks the others: whether they have a stream that a request may continue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.access.budget import Budget
from gateway.modes.body import Bodies
from gateway.modes.resumable.asked import Asked
from gateway.modes.resumable.peers import Peers
from gateway.modes.resumable.store import StoreError, StreamHead
from gateway.streams.wheel import TimerWheel

ODD = "caf\u00e9 \udcff \u4e16 '\""  # header fields that are not UTF-8 have surrogates
ASKED = Asked("event", StreamHead("", "/ü", "POST", ODD, b"\x00\xff", b"body", ODD, (), 0.0, "owner", ODD), ODD)

Answer = Callable[[bytes], bytes] | None
"""None: it says nothing."""


async def other(path: Path, answer: Answer) -> asyncio.Server:
    """Start a worker that answers one query per connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        query = await reader.readexactly(length)
        writer.write(answer(query) if answer is not None else await reader.read())  # which ends when the first worker gives up
        writer.close()

    return await asyncio.start_unix_server(serve, path)


@asynccontextmanager
async def peers(directory: Path, *answers: Answer) -> AsyncIterator[Peers]:
    """Open the first worker. The others give these answers, and the last one is gone."""
    paths = [directory / str(number) for number in range(len(answers) + 2)]
    servers = [await other(path, answer) for path, answer in zip(paths[1:], answers, strict=False)]
    peers = Peers(0, [str(path) for path in paths])
    peers.open(TimerWheel(1.0), Bodies(Budget(2**20, 2**20), 2**20), keepalive_seconds=10.0, max_header_bytes=2**15)
    try:
        async with asyncio.timeout(60):
            yield peers
    finally:
        await peers.close()
        for server in servers:
            server.close()


def says(status: bytes, body: bytes) -> Answer:
    def answer(query: bytes) -> bytes:
        assert Asked.decode(query) == ASKED
        return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)

    return answer


async def test_worker_with_the_newest_stream_is_found_though_others_are_gone_or_stuck(tmp_path: Path) -> None:
    answers = [says(b"200 OK", b"1700000000.5"), says(b"200 OK", b"1700000001.25"), says(b"404 Not Found", b""), None]
    with capture_logs() as logs:
        async with peers(tmp_path, *answers) as first:
            assert await first.find_worker(ASKED) == 2
            assert await first.find_worker(ASKED, newer_than=1700000001.0) == 2
            assert await first.find_worker(ASKED, newer_than=1700000001.25) is None
    assert [entry["log_level"] for entry in logs] == ["warning"] * 6


async def test_no_worker_has_a_stream(tmp_path: Path) -> None:
    async with peers(tmp_path, says(b"404 Not Found", b"")) as first:
        assert await first.find_worker(ASKED) is None


async def test_no_worker_is_asked_for_a_request_without_credentials(tmp_path: Path) -> None:
    async with peers(tmp_path, lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1") as first:
        assert await first.find_worker(Asked("event", StreamHead("", "/", "POST", "/", b"", b"", "", (), 0.0), "1")) is None


async def test_worker_that_cannot_read_its_store_is_no_worker_without_the_stream(tmp_path: Path) -> None:
    async with peers(tmp_path, says(b"200 OK", b"1700000000.5"), says(b"503 Service Unavailable", b"")) as first:
        with pytest.raises(StoreError, match="another worker cannot read its store"):
            await first.find_worker(ASKED)
