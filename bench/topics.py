"""Topics of the producer: the speed of publishing and replaying events, and its cost for the producer."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httptools
import uvloop

from .process_tree import end, measuring_cpus, pinned, usage
from .servers import REPOSITORY, environment

_GUARD_SECONDS = 300
_DATA = "x" * 100
_REPLAY_BATCH = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TopicMeasurement:
    """The results of the producer."""

    title: str
    events_per_second: float
    cpu_us_per_event: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    """Percentiles of a request."""


@dataclass(frozen=True, slots=True)
class Producer:
    """A producer with an empty log on a CPU of its own."""

    port: int
    pid: int


@contextmanager
def run_producer(**settings: str) -> Iterator[Producer]:
    """Start a producer with these settings, and end it."""
    cpus = measuring_cpus()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        variables = {"PORT": "0", "LOG_DIR": folder, "DEMO": "false"} | settings
        environ = environment() | {f"PRODUCER_{name}": value for name, value in variables.items()}
        with pinned(cpus[0] if cpus else None):
            command = [sys.executable, "-m", "producer"]
            process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                fact = json.loads(line)
                if fact["event"] == "listening":
                    yield Producer(fact["port"], process.pid)
                    return
            raise RuntimeError(f"the producer ended with status {process.wait()} before it listened")
        finally:
            end(process)


class Publisher(asyncio.Protocol):
    """One kept-alive connection that repeats the same request as soon as it is answered 201."""

    def __init__(self, request: bytes, begin: Callable[[], bool]) -> None:
        self._request = request
        self._begin = begin
        self.done = asyncio.get_running_loop().create_future()
        self.request_ns: list[int] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Handle httptools' end of the response."""
        if self._parser.get_status_code() != 201:
            self.done.set_exception(RuntimeError(f"answered with {self._parser.get_status_code()}"))
            return
        self.request_ns.append(time.monotonic_ns() - self._asked)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError("the connection ended"))

    def _ask(self) -> None:
        if not self._begin():
            self.done.set_result(None)
            return
        self._asked = time.monotonic_ns()
        self.transport.write(self._request)  # type: ignore[attr-defined]


class Subscriber(asyncio.Protocol):
    """Reads one event stream and counts its ids until there are `count`."""

    def __init__(self, request: bytes, count: int) -> None:
        self._request = request
        self._count = count
        self._tail = b""
        self.events = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._parser = httptools.HttpResponseParser(self)
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Handle httptools' body bytes, without the HTTP chunking."""
        joined = self._tail + body
        self.events += joined.count(b"\nid: ")
        self._tail = joined[-4:]
        if self.events >= self._count and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or RuntimeError(f"the stream ended after {self.events} events"))


def publish_singly(requests: int = 10_000, connections: int = 64) -> TopicMeasurement:
    """Measure one event per request, each synced before it is answered."""
    body = json.dumps({"data": _DATA}).encode()
    return _publish("single events, synced, 64 connections", _request("bench", body), requests, connections, 1)


def publish_batches(requests: int = 1000, connections: int = 8, size: int = 100) -> TopicMeasurement:
    """Measure a JSON array of events per request, each synced before it is answered."""
    body = json.dumps([{"data": _DATA}] * size).encode()
    return _publish(f"batches of {size}, synced, {connections} connections", _request("bench", body), requests, connections, size)


def replay(events: int = 1_000_000) -> TopicMeasurement:
    """Measure one subscriber that replays all events."""
    batch = _request("bench", json.dumps([{"data": _DATA}] * _REPLAY_BATCH).encode())
    with run_producer(LOG_SYNC="interval") as producer:
        _run(lambda: _send(producer, batch, events // _REPLAY_BATCH, 4))
        before, began = usage(producer.pid), time.monotonic()
        _run(lambda: _follow(producer, events))
        seconds, after = time.monotonic() - began, usage(producer.pid)
    return TopicMeasurement(f"replay of {events} events", events / seconds, (after.cpu_ns - before.cpu_ns) / 1000 / events)


def _publish(title: str, request: bytes, requests: int, connections: int, size: int) -> TopicMeasurement:
    with run_producer(LOG_SYNC="always") as producer:
        _run(lambda: _send(producer, request, requests // 10, connections))
        before, began = usage(producer.pid), time.monotonic()
        taken = sorted(_run(lambda: _send(producer, request, requests, connections)))
        seconds, after = time.monotonic() - began, usage(producer.pid)
    events = requests * size
    p50, p99 = (taken[int(len(taken) * share)] / 1e6 for share in (0.5, 0.99))
    return TopicMeasurement(title, events / seconds, (after.cpu_ns - before.cpu_ns) / 1000 / events, p50, p99)


def _run(work: Callable[[], Awaitable[T]]) -> T:
    """Run the client on its own CPU."""
    cpus = measuring_cpus()

    async def guarded() -> T:
        async with asyncio.timeout(_GUARD_SECONDS):
            return await work()

    with pinned(cpus[1] if cpus else None), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(guarded())


async def _send(producer: Producer, request: bytes, requests: int, connections: int) -> list[int]:
    left = requests

    def begin() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    loop = asyncio.get_running_loop()
    publishers = []
    for _ in range(connections):
        transport, publisher = await loop.create_connection(lambda: Publisher(request, begin), "127.0.0.1", producer.port)
        publishers.append((transport, publisher))
    await asyncio.gather(*(publisher.done for _, publisher in publishers))
    for transport, _ in publishers:
        transport.abort()
    return [taken for _, publisher in publishers for taken in publisher.request_ns]


async def _follow(producer: Producer, events: int) -> None:
    request = b"GET /topics/bench/events?from=start HTTP/1.1\r\nHost: bench\r\n\r\n"
    loop = asyncio.get_running_loop()
    transport, subscriber = await loop.create_connection(lambda: Subscriber(request, events), "127.0.0.1", producer.port)
    await subscriber.done
    transport.abort()


def _request(topic: str, body: bytes) -> bytes:
    head = f"POST /topics/{topic}/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    for measured in (publish_singly(), publish_batches(), replay()):
        print(measured)
