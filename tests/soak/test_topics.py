"""Topics for a long time: publishers, subscribers that disconnect and resume, retention, and flat memory of the producer.

`make soak` runs it for SOAK_SECONDS; with SOAK_SEED it repeats the decisions of a failed run.
"""

import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from eventstream import Framer, Parser
from tests.kit.stack import REPOSITORY, ServiceProcess, clean_environment, free_ports, service_command
from tests.soak.subscriber import Sequence, follow, offset

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))
WARM_UP_SECONDS = max(SECONDS / 10, 4.0)
RETAINED = 500
BATCH = 50
SUBSCRIBERS = 24
FLAT_MIB = 20
GUARD_SECONDS = 30

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 1.5 + 120)]
_log = logging.getLogger("soak")


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[ServiceProcess]:
    [port] = free_ports(1)
    environ = {
        "PRODUCER_PORT": str(port),
        "PRODUCER_LOG_DIR": str(tmp_path / "log"),
        "PRODUCER_DEMO": "false",
        "PRODUCER_RETAIN_MAX_EVENTS": str(RETAINED),
        "PRODUCER_TOPIC_RETRY_MS": "100",
    }
    service = ServiceProcess("producer", port, environ, tmp_path / "producer.output", service_command("producer", plain=True))
    service.start()
    try:
        service.wait_until_ready()
        yield service
    finally:
        if service.running:
            service.kill()


class Publishing:
    """A topic's publisher: single events or batches, some of them twice under one key, which must get the same answer."""

    def __init__(self, http: aiohttp.ClientSession, name: str, batch: int, pause_seconds: float, chance: random.Random) -> None:
        self.published = 0
        self.last_id = ""
        self._http = http
        self._name = name
        self._batch = batch
        self._pause_seconds = pause_seconds
        self._chance = chance

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            numbers = range(self.published + 1, self.published + 1 + self._batch)
            filler = "x" * self._chance.randrange(400)
            events = [{"data": f"{self._name} {number} {filler}"} for number in numbers]
            first = await self._post(numbers[0], events)
            if self._chance.random() < 0.05:
                assert await self._post(numbers[0], events, status=200) == first
            self.published += self._batch
            self.last_id = str(first.get("last_id") or first["id"])
            await asyncio.sleep(self._chance.expovariate(1 / self._pause_seconds))

    async def _post(self, number: int, events: list[dict[str, str]], status: int = 201) -> dict[str, object]:
        body = events if self._batch > 1 else events[0]
        headers = {"Idempotency-Key": f"{self._name}-{number}"}
        async with self._http.post(f"/topics/soak.{self._name}/events", json=body, headers=headers) as answer:
            assert answer.status == status, await answer.text()
            told: dict[str, object] = await answer.json()
            return told


@asynccontextmanager
async def sampled_memory(process: psutil.Process) -> AsyncIterator[list[tuple[float, float]]]:
    """Yield a growing list: seconds since the beginning, and MiB of the process."""
    samples: list[tuple[float, float]] = []
    begun = time.monotonic()

    async def sample() -> None:
        while True:
            samples.append((time.monotonic() - begun, process.memory_info().rss / 2**20))
            await asyncio.sleep(0.25)

    sampling = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        sampling.cancel()


async def test_memory_stays_flat_and_every_subscriber_gets_each_retained_event_once(producer: ServiceProcess, tmp_path: Path) -> None:
    _log.info("seed %d, %.0f seconds", SEED, SECONDS)
    chance = random.Random(SEED)
    url = producer.status_url
    sequences = [Sequence(f"subscriber {number}") for number in range(SUBSCRIBERS)]
    paths = [chance.choice(("soak.>", ">", "soak.*", "soak.one", "soak.many")) for _ in sequences]
    urls = [f"{url}/topics/{path.replace('>', '%3E')}/events?from=start" for path in paths]
    absences = [0.5, 2.0, max(SECONDS / 4, 5.0)]  # the last is longer than retention keeps anything
    stopping = asyncio.Event()
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(GUARD_SECONDS)) as http:
        publishers = [
            Publishing(http, name, batch, pause, random.Random(chance.random()))
            for name, batch, pause in (("one", 1, 0.02), ("two", 1, 0.005), ("many", BATCH, 0.1))
        ]
        async with sampled_memory(psutil.Process(producer.pid)) as samples, asyncio.TaskGroup() as tasks:
            for publisher in publishers:
                tasks.create_task(publisher.run(stopping))
            for number, (target, sequence) in enumerate(zip(urls, sequences, strict=True)):
                own = random.Random(chance.random())
                tasks.create_task(follow(target, sequence, own, absences[number % len(absences)], stopping))
            await asyncio.sleep(SECONDS)
            stopping.set()
        for target, sequence in zip(urls, sequences, strict=True):
            await catch_up(http, target, sequence)
        retained = [topic["count"] for topic in (await (await http.get("/topics")).json())["topics"]]
    published = sum(publisher.published for publisher in publishers)
    _report(samples, published, sequences)
    newest = max(offset(publisher.last_id) for publisher in publishers)
    assert newest == published
    assert max(offset(sequence.last_id) for sequence in sequences) == newest
    assert published > 2 * RETAINED, "retention had nothing to do"
    assert sum(retained) <= RETAINED + 10 * BATCH, "retention does not keep up"
    assert any(sequence.gaps for sequence in sequences), "no subscriber was away for long enough"
    warm = [mib for seconds, mib in samples if seconds >= WARM_UP_SECONDS]
    assert max(warm) - warm[0] <= FLAT_MIB
    assert warm[0] - min(warm) <= FLAT_MIB
    assert producer.stop() == 0
    command = [sys.executable, "-m", "producer", "check", str(tmp_path / "log")]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=GUARD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


async def catch_up(http: aiohttp.ClientSession, url: str, sequence: Sequence) -> None:
    """Let a subscriber read everything after its last ID, to the end."""
    async with http.get(f"{url}&follow=false", headers={"Last-Event-ID": sequence.last_id}) as answer:
        assert answer.status in (200, 204)
        for event in Parser(sequence.last_id).feed(Framer().feed(await answer.read())):
            sequence.take(event)


def _report(samples: list[tuple[float, float]], published: int, sequences: list[Sequence]) -> None:
    warm = [mib for seconds, mib in samples if seconds >= WARM_UP_SECONDS]
    _log.info("%d events published, %.0f/s", published, published / SECONDS)
    _log.info("%d events received, %d gaps told", sum(s.events for s in sequences), sum(s.gaps for s in sequences))
    tenths = [warm[len(warm) * tenth // 10] for tenth in range(10)] + [warm[-1]]
    _log.info("memory after warm-up: %.1f to %.1f MiB; at each tenth %s", min(warm), max(warm), " ".join(f"{mib:.1f}" for mib in tenths))
