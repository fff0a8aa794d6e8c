"""Requests to the producer that say of two hosts which they are for, or of none: servers behind one another would read them differently."""

import asyncio
import json

import pytest

from producer.settings import Settings
from tests.kit.producer import serve
from tests.kit.waiting import GUARD_SECONDS

GOOD = {
    "name": b"Host: producer\r\n",
    "name and port": b"Host: producer.example:8000\r\n",
    "IPv6": b"Host: [::1]:8000\r\n",
    "empty": b"Host:\r\n",
}
BAD = {
    "none": b"",
    "two": b"Host: producer\r\nHost: admin\r\n",
    "two that are equal": b"Host: producer\r\nhost: producer\r\n",
    "list": b"Host: a, b\r\n",
    "blank": b"Host: a b\r\n",
    "user": b"Host: a@b\r\n",
    "path": b"Host: a/b\r\n",
    "not ASCII": b"Host: \xff\r\n",
}
BODY = b'{"data": 1}'


async def answer_to(port: int, request: bytes) -> bytes:
    """All that comes until the producer closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(GUARD_SECONDS):
        writer.write(request)
        received = await reader.read()
    writer.close()
    return received


def requests(host: bytes, version: bytes = b"1.1", *, closes: bool) -> list[bytes]:
    """Return a request for the status, and one that publishes, which is handled separately."""
    fields = host + (b"Connection: close\r\n" if closes else b"")
    post = b"POST /topics/hosts/events HTTP/%b\r\n%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return [b"GET /livez HTTP/%b\r\n%b\r\n" % (version, fields), post % (version, fields, len(BODY), BODY)]


@pytest.mark.parametrize("host", BAD.values(), ids=BAD)
async def test_request_without_exactly_one_valid_host_is_400_and_ends_the_connection(host: bytes) -> None:
    async with serve(Settings()) as producer:
        for request in requests(host, closes=False):
            head, _, body = (await answer_to(producer.port, request)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert "one field Host" in json.loads(body)["detail"]
        assert producer.log.last == 0


@pytest.mark.parametrize("host", GOOD.values(), ids=GOOD)
async def test_request_with_one_valid_host_is_answered(host: bytes) -> None:
    async with serve(Settings()) as producer:
        statuses = [(await answer_to(producer.port, request))[9:12] for request in requests(host, closes=True)]
        assert statuses == [b"200", b"201"]


async def test_http_1_0_needs_no_host() -> None:
    async with serve(Settings()) as producer:
        statuses = [(await answer_to(producer.port, request))[9:12] for request in requests(b"", b"1.0", closes=True)]
        assert statuses == [b"200", b"201"]
        two = await answer_to(producer.port, requests(BAD["two"], b"1.0", closes=True)[0])
        assert two[9:12] == b"400"
