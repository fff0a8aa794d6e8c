"""Common clients read the stack's streams through the gateway: whole, and while they are produced."""

import subprocess
from collections.abc import Iterator

import aiohttp
import httpx
import httpx_sse
import pytest
import requests

from tests.kit.stack import DEMO_TEXT, SentCount, Stack, clean_environment, run_stack

pytestmark = pytest.mark.timeout(300)

MESSAGE = "Streams end to end, 世界"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_INTERVAL_MS="50") as stack:
        yield stack


class Reading:
    """The part of a stream of one-line events that a client has read; its whole text is `expected`."""

    def __init__(self, stack: Stack, route: str, expected: str) -> None:
        self._sent = SentCount(stack, route)
        self._kept = route == "POST /sse"
        self._expected = expected
        self._body = b""
        self._streamed = False

    def add(self, chunk: bytes) -> None:
        """Add `chunk`; at the first whole event, check that the producer has yet to send the last one."""
        self._body += chunk
        if not self._streamed and b"\n\n" in self._body:
            assert self._sent.now() < len(self._expected)
            self._streamed = True

    def finish(self) -> None:
        assert self._streamed
        lines = self._body.decode().splitlines()
        assert "".join(line.removeprefix("data: ") for line in lines if line.startswith("data")) == self._expected
        assert lines.count("event: message") == lines.count("retry: 15000") == self._sent.now() == len(self._expected)
        assert_ids([line.removeprefix("id: ") for line in lines if line.startswith("id")], len(self._expected) if self._kept else 0)


def assert_ids(ids: list[str], count: int) -> None:
    """Check the IDs of the first `count` events of a kept stream: all begin with the stream's own, and count up from 1."""
    stream = ids[0].partition("-")[0] if ids else ""
    assert ids == [f"{stream}-{number}" for number in range(1, count + 1)]
    assert len(stream) == (32 if count else 0)


@pytest.mark.curl
def test_curl_prints_the_demo_sentence_as_it_is_produced(stack: Stack) -> None:
    reading = Reading(stack, "GET /", DEMO_TEXT)
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", stack.url + "/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as curl:
        assert curl.stdout
        for line in curl.stdout:
            reading.add(line)
    assert curl.returncode == 0
    reading.finish()


@pytest.mark.curl
def test_curl_posts_a_message_and_prints_it_as_it_is_produced(stack: Stack) -> None:
    reading = Reading(stack, "POST /sse", MESSAGE)
    body = ["--header", "Content-Type: application/json", "--data", f'{{"message": "{MESSAGE}"}}']
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", *body, stack.url + "/sse"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as curl:
        assert curl.stdout
        for line in curl.stdout:
            reading.add(line)
    assert curl.returncode == 0
    reading.finish()


def test_requests_iter_content_reads_the_demo_sentence(stack: Stack) -> None:
    reading = Reading(stack, "GET /", DEMO_TEXT)
    with requests.Session() as session:
        session.trust_env = False
        with session.get(stack.url + "/", stream=True, timeout=10) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            for chunk in response.iter_content(chunk_size=None):
                reading.add(chunk)
    reading.finish()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_aiohttp_iter_any_reads_the_stream(stack: Stack, method: str) -> None:
    path, text = ("/", DEMO_TEXT) if method == "GET" else ("/sse", MESSAGE)
    reading = Reading(stack, f"{method} {path}", text)
    body = None if method == "GET" else {"message": MESSAGE}
    async with aiohttp.ClientSession() as session, session.request(method, stack.url + path, json=body) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            reading.add(chunk)
    reading.finish()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_httpx_sse_reads_the_events(stack: Stack, method: str) -> None:
    path, text = ("/", DEMO_TEXT) if method == "GET" else ("/sse", MESSAGE)
    sent = SentCount(stack, f"{method} {path}")
    events: list[httpx_sse.ServerSentEvent] = []
    with (
        httpx.Client(trust_env=False) as client,
        httpx_sse.connect_sse(client, method, stack.url + path, json=None if method == "GET" else {"message": MESSAGE}) as source,
    ):
        for event in source.iter_sse():
            if not events:
                assert sent.now() < len(text)
            events.append(event)
    assert "".join(event.data for event in events) == text
    assert_ids([event.id for event in events if event.id], len(text) if method == "POST" else 0)
    assert {(event.event, event.retry) for event in events} == {("message", 15000)}
