"""Everything the gateway can do, at once and for a long time: afterwards memory is as before, and no task or socket is left.

`make soak` runs it for SOAK_SECONDS; with SOAK_SEED it repeats the decisions of a failed run.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import psutil
import pytest

from eventstream import Framer, Parser
from eventstream.client import EventSource
from tests.auth.signing import SECRET, hs_token
from tests.kit.stack import REPOSITORY, Stack, clean_environment, run_stack
from tests.kit.waiting import wait_until
from tests.soak.subscriber import Sequence
from tests.soak.test_topics import Publishing

SECONDS = float(os.environ.get("SOAK_SECONDS", "5"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))
WARM_UP_SECONDS = max(SECONDS / 5, 3.0)
FLAT_MIB = 25
MOST_REQUESTS = 40
GUARD_SECONDS = 30
WORDS = " ".join(str(number) for number in range(60))
KEY = "an-api-key-that-is-secret-4711"
TOPICS = "/topics/soak.%3E/events"
BETWEEN_BLOCKS = re.compile(rb"(retry: \d+\n|:\n)*")
"""Lines that the gateway adds before a block, or at the end of a stream."""

ROUTES = """
[[routes]]
path = "/"

[[routes]]
path = "/topics/"
mode = "shared"
public = true
linger_seconds = 1
begin_parameters = ["from", "since", "last_event_id"]
private_parameters = ["limit", "follow"]
[routes.cors]
origins = ["https://app.example"]
credentials = true
[routes.auth]
kind = "jwt"
secret_env = "SOAK_SECRET"
query_parameter = "access_token"
leeway_seconds = 0

[[routes]]
path = "/sse"
mode = "resumable"
retain_seconds = 5
orphan_seconds = 2
max_stream_bytes = 100000
[routes.auth]
kind = "api-keys"
[[routes.auth.keys]]
name = "writer"
key_env = "SOAK_KEY"
[routes.auth.keys.grants]
publish = ["/sse"]
read = ["/sse"]
"""

_NO_HTTP = (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 1.5 + 180)]
_log = logging.getLogger("soak")


@pytest.fixture
def spans() -> Iterator[tuple[str, list[int]]]:
    """Yield the URL of a collector of spans, and the sizes of the requests it received."""
    sizes: list[int] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sizes.append(len(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sizes
        server.shutdown()


@pytest.fixture
def stack(tmp_path: Path, spans: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    (tmp_path / "routes.toml").write_text(ROUTES)
    for name, value in {
        "SOAK_SECRET": SECRET,
        "SOAK_KEY": KEY,
        "OTEL_EXPORTER_OTLP_ENDPOINT": spans[0],
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }.items():
        monkeypatch.setenv(name, value)
    forever = hs_token(sub="consumer", exp=int(time.time()) + 86_400)
    with run_stack(
        tmp_path,
        plain=True,
        PRODUCER_TOPIC_RETRY_MS="100",
        GATEWAY_CONFIG=str(tmp_path / "routes.toml"),
        GATEWAY_UPSTREAM_KEEPALIVE_SECONDS="0.5",
        GATEWAY_MAX_REQUESTS_PER_SECOND_PER_CLIENT=str(MOST_REQUESTS),
        GATEWAY_MAX_BYTES_PER_SECOND_PER_CLIENT="300000",
        CONSUMER_SOURCE_HEADERS=json.dumps({"Authorization": f"Bearer {forever}"}),
        CONSUMER_STDOUT="false",
    ) as stack:
        yield stack


class Life:
    """The clients that run until `stopping`: each kind repeats its actions, and counts them."""

    def __init__(self, stack: Stack, directory: Path, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self.stopping = asyncio.Event()
        self.sequences: list[Sequence] = []
        self._stack = stack
        self._config = directory / "routes.toml"
        self._chance = chance
        self._admin = stack.gateway.status_url

    async def go_on(self, http: aiohttp.ClientSession, seconds: float) -> None:
        """Run all clients for `seconds`. They read the events published here, so nothing else may publish."""
        each: list[tuple[int, Callable[[aiohttp.ClientSession, int], Awaitable[None]]]] = [
            (12, self._subscribe),
            (2, self._expire),
            (4, self._ask),
            (2, self._read_text),
            (2, self._intrude),
            (1, self._hammer),
            (1, self._scrape),
            (1, self._reload),
            (2, self._look),
        ]
        async with asyncio.TaskGroup() as tasks:
            for count, live in each:
                for number in range(count):
                    tasks.create_task(self._repeat(live, http, number))
            for topic in ("one", "two"):
                tasks.create_task(self._publish(f"{topic}-{seconds:.0f}"))
            await asyncio.sleep(seconds)
            self.stopping.set()

    async def _publish(self, topic: str) -> None:
        token = hs_token(sub=topic, exp=int(time.time()) + 86_400)
        async with aiohttp.ClientSession(self._stack.url, headers={"Authorization": f"Bearer {token}"}) as http:
            await Publishing(http, topic, 1, 0.1, random.Random(self._chance.random())).run(self.stopping)

    async def _repeat(
        self, live: Callable[[aiohttp.ClientSession, int], Awaitable[None]], http: aiohttp.ClientSession, number: int
    ) -> None:
        while not self.stopping.is_set():
            await live(http, number)
            self.done[live.__name__.lstrip("_")] += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), self._chance.uniform(0, 0.5))

    async def _subscribe(self, _http: aiohttp.ClientSession, number: int) -> None:
        while len(self.sequences) <= number:
            self.sequences.append(Sequence(f"subscriber {len(self.sequences)}"))
        sequence = self.sequences[number]
        url = f"{self._stack.url}{TOPICS}?from=start&access_token={hs_token(sub=f'subscriber {number}')}"
        async with EventSource(url, last_event_id=sequence.last_id, read_timeout_seconds=60) as source:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.1, 3.0)):
                    async for event in source:
                        sequence.take(event)

    async def _expire(self, http: aiohttp.ClientSession, number: int) -> None:
        token = hs_token(sub=f"guest {number}", exp=int(time.time()) + 2)
        framer, tail = Framer(), b""
        with contextlib.suppress(aiohttp.ClientPayloadError):  # its end, which does not look complete
            async with http.get(TOPICS, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status == 200
                async for chunk in answer.content.iter_any():
                    framer.feed(chunk)
                    tail = (tail + chunk)[-100:]
        begun = tail[max(len(tail) - framer.pending_bytes, 0) :]
        assert BETWEEN_BLOCKS.fullmatch(begun), f"cut within a block: {framer} {begun!r}"

    async def _ask(self, http: aiohttp.ClientSession, number: int) -> None:
        key = {"X-API-Key": KEY}
        body = {"message": WORDS}
        parser, text, last = Parser(), "", ""
        leave_at = self._chance.randrange(1, 50)
        async with http.post("/sse?split=word&interval_ms=10", json=body, headers=key) as answer:
            assert answer.status == 200, await answer.text()
            path = answer.headers["Location"]
            framer = Framer()
            async for chunk in answer.content.iter_any():
                for event in parser.feed(framer.feed(chunk)):
                    text += event.data
                    last = event.last_event_id
                if len(text.split()) > leave_at:
                    break
        async with http.get(path, headers={**key, "Last-Event-ID": last}) as answer:
            assert answer.status == 200 or (answer.status == 204 and text == WORDS), (answer.status, text)
            text += "".join(event.data for event in Parser().feed(await answer.read()))
        assert text == WORDS, number

    async def _read_text(self, http: aiohttp.ClientSession, _number: int) -> None:
        async with http.get("/?interval_ms=10") as answer:
            assert (await answer.read()).endswith(b"\n\n")

    async def _intrude(self, http: aiohttp.ClientSession, number: int) -> None:
        headers = {"Authorization": f"Bearer {hs_token(exp=1)}", "Origin": "https://evil.example"}
        for path, statuses in ((TOPICS, {401}), ("/sse", {401, 405}), ("/streams/" + "0" * 32, {401, 403, 404})):
            async with http.get(path, headers=headers) as answer:
                assert answer.status in {*statuses, 429}, (path, answer.status)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self._stack.url.rpartition(":")[2]))
        writer.write(self._chance.choice(_NO_HTTP))
        try:
            status = await reader.readline()
            assert status.split()[1:2] == [b"400"], (number, status)
        finally:
            writer.close()
            await writer.wait_closed()

    async def _hammer(self, http: aiohttp.ClientSession, _number: int) -> None:
        headers = {"Authorization": f"Bearer {hs_token(sub='hasty')}"}

        async def ask() -> int:
            async with http.get(f"{TOPICS}?limit=1&follow=false", headers=headers) as answer:
                assert answer.status in (200, 429), answer.status
                self.done[f"status {answer.status}"] += 1
                return answer.status

        begun = time.monotonic()
        statuses = await asyncio.gather(*(ask() for _ in range(2 * MOST_REQUESTS)))
        seconds = time.monotonic() - begun  # in which a slow machine may have served them all
        assert statuses.count(200) <= MOST_REQUESTS * (1 + seconds) + 1, (statuses, seconds)

    async def _scrape(self, http: aiohttp.ClientSession, _number: int) -> None:
        for service in self._stack.services:
            async with http.get(service.status_url + "/metrics") as answer:
                assert answer.status == 200

    async def _reload(self, http: aiohttp.ClientSession, _number: int) -> None:
        for text, status in ((ROUTES + "\nnonsense", 422), (ROUTES + '[[routes]]\npath = "/plain"', 200), (ROUTES, 200)):
            self._config.write_text(text)
            async with http.post(self._admin + "/reload") as answer:
                assert answer.status == status, await answer.text()

    async def _look(self, http: aiohttp.ClientSession, _number: int) -> None:
        async with http.get(self._admin + "/dashboard/events") as answer:
            assert answer.status == 200
            framer, parser = Framer(), Parser()
            async for chunk in answer.content.iter_any():
                if events := parser.feed(framer.feed(chunk)):
                    assert KEY not in events[-1].data
                    assert SECRET not in events[-1].data
                    if self._chance.random() < 0.5:
                        return


async def test_no_resource_is_left_after_all_kinds_of_clients(stack: Stack, spans: tuple[str, list[int]], tmp_path: Path) -> None:
    _log.info("seed %d, %.0f seconds", SEED, SECONDS)
    chance = random.Random(SEED)
    process = psutil.Process(stack.gateway.pid)
    life: Life | None = None
    mib: list[float] = []
    left: list[tuple[int, float]] = []
    for seconds in (WARM_UP_SECONDS, SECONDS):
        life = Life(stack, tmp_path, chance)
        timeout = aiohttp.ClientTimeout(None, sock_read=GUARD_SECONDS)
        async with aiohttp.ClientSession(stack.url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
            await life.go_on(http, seconds)
        wait_until(lambda: stack.gateway.metric("gateway_open_requests") == 1, "only the consumer is there", GUARD_SECONDS)
        wait_until(lambda: stack.gateway.metric("gateway_shared_streams") == 1, "and its stream", GUARD_SECONDS)
        wait_until(lambda: stack.gateway.metric("gateway_kept_streams_running") == 0, "nothing runs", GUARD_SECONDS)
        await asyncio.sleep(1)  # upstream connections are kept for half of it
        left.append((process.num_fds(), stack.gateway.metric("gateway_tasks")))
        mib.append(process.memory_info().rss / 2**20)
        _log.info("%.1f MiB, descriptors and tasks %s, %s", mib[-1], left[-1], dict(life.done))
    assert life is not None
    assert all(life.done[what] for what in ("subscribe", "expire", "ask", "read_text", "intrude", "hammer", "scrape", "reload", "look"))
    assert all(sequence.events for sequence in life.sequences)
    assert spans[1], "no span was sent"
    (fds_before, tasks_before), (fds_after, tasks_after) = left
    assert fds_after <= fds_before + 2
    assert tasks_after <= tasks_before
    assert mib[1] - mib[0] <= FLAT_MIB
    errors = [
        line
        for line in stack.gateway.log()
        if line["level"] == "error" and line["event"] != "routes not reloaded; the old ones stay in force"
    ]
    assert errors == []
    for command in (["consumer", "verify", str(stack.log_dir)], ["producer", "check", str(tmp_path / "producer")]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=GUARD_SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
