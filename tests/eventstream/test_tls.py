"""An event source over TLS: which certificates it trusts, how it reports others, and how it disconnects."""

import asyncio
import ssl
import threading
import time
from pathlib import Path

import pytest
import uvloop

from eventstream.client import EventSource
from eventstream.tls import describe_tls, find_tls_error
from tests.kit.blocking_upstream import BlockingUpstream, Connection
from tests.kit.certificates import Authority
from tests.kit.waiting import GUARD_SECONDS

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_server_that_only_writes_is_disconnected_at_once(authority: Authority) -> None:
    """On uvloop, closing in order waits up to 30 s for the server's answer, and the server keeps writing."""
    failed = threading.Event()

    def drip(connection: Connection) -> None:
        connection.read_head()
        connection.send(HEAD)
        try:
            while True:
                connection.send(b"9\r\ndata: 1\n\n\r\n")
                time.sleep(0.02)
        finally:
            failed.set()

    async def leave(url: str) -> None:
        context = ssl.create_default_context(cafile=authority.file)
        async with asyncio.timeout(GUARD_SECONDS), EventSource(url, tls=context) as source:
            assert (await anext(source)).data == "1"
            begun = time.monotonic()
            source.restart()
            while not failed.is_set():
                await asyncio.sleep(0.01)
            assert time.monotonic() - begun < 10

    with BlockingUpstream(drip, authority.issue("dripping").server_context()).running() as upstream:
        uvloop.run(leave(upstream.url))


def test_tls_error_is_described_in_words() -> None:
    incoming = ssl.MemoryBIO()
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # as servers answer on a port without TLS
    with pytest.raises(ssl.SSLError) as failed:
        ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
    assert describe_tls(failed.value) == "TLS: wrong version number"


async def test_untrusted_certificate_is_described_in_words(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    failures: list[str] = []

    def note(source: EventSource) -> None:
        failures.append(source.last_error or "")

    with BlockingUpstream(lambda connection: None, stranger.issue("foreign").server_context()).running() as upstream:
        context = ssl.create_default_context(cafile=authority.file)
        async with asyncio.timeout(GUARD_SECONDS), EventSource(upstream.url, tls=context, on_change=note) as source:
            following = asyncio.create_task(anext(source))
            while not failures:
                await asyncio.sleep(0.01)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert failures[0] == "TLS: certificate verify failed: unable to get local issuer certificate"


def test_exception_that_is_its_own_cause_has_no_tls_error() -> None:
    error = OSError()
    error.__cause__ = error
    assert find_tls_error(error) is None
