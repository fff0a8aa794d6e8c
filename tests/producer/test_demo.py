"""The demo topics: their events, their times, and their behaviour when the log accepts nothing."""

import asyncio
import json
import re
import threading
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from eventstream import Parser
from producer.log.event_log import Appended, IdempotencyKey, LogError, LogFull
from producer.topics.demo import HostReader, publish_demo
from producer.web.drain import Drain
from tests.kit.producer import ProducerProcess, start_producer
from tests.kit.waiting import GUARD_SECONDS

PERIOD = 0.02
HOST = {"cpu_percent": 1.5}


class ScriptedLog:
    """Accepts appends, except those whose number (from 1) is among `refused`."""

    def __init__(self, refused: Collection[int] = (), error: LogError | None = None) -> None:
        self.appends = 0
        self.taken: list[tuple[str, str]] = []
        self._refused = refused
        self._error = error or LogFull("there is no space left on the device")
        self._grown = asyncio.Event()

    async def append(self, topic: str, blocks: Sequence[bytes], key: IdempotencyKey | None = None) -> Appended:
        self.appends += 1
        self._grown.set()
        if self.appends in self._refused:
            raise self._error
        assert key is None
        [event] = Parser().feed(*blocks)
        assert (event.type, event.id) == ("message", None)
        self.taken.append((topic, event.data))
        return Appended(len(self.taken), len(self.taken))

    async def has(self, appends: int) -> None:
        """Return when `appends` appends were attempted."""
        async with asyncio.timeout(GUARD_SECONDS):
            while self.appends < appends:
                self._grown.clear()
                await self._grown.wait()

    def data(self, topic: str) -> list[str]:
        return [data for name, data in self.taken if name == topic]


def read_host() -> dict[str, Any]:
    return HOST


async def run_demo(log: ScriptedLog, appends: int, read: Any = read_host, period: float = PERIOD) -> list[Any]:
    """Run the demo until `appends` appends were attempted, drain, and return what was logged meanwhile."""
    drain = Drain()
    with capture_logs() as lines:
        demo = asyncio.create_task(publish_demo(log, drain, period_seconds=period, read_host=read))  # type: ignore[arg-type]
        await log.has(appends)
        drain.begin()
        async with asyncio.timeout(GUARD_SECONDS):
            await demo
    return lines


async def test_clock_and_host_are_published_once_per_period_until_the_drain() -> None:
    log = ScriptedLog()
    assert await run_demo(log, 20) == []
    assert [topic for topic, _ in log.taken] == ["demo.clock", "demo.host"] * (len(log.taken) // 2)
    assert [json.loads(data) for data in log.data("demo.host")] == [HOST] * (len(log.taken) // 2)
    times = [datetime.fromisoformat(text) for text in log.data("demo.clock")]
    assert times == sorted(set(times)), "a period twice, or the clock went back"


async def test_clock_publishes_the_second_that_has_begun() -> None:
    log = ScriptedLog()
    await run_demo(log, 1, period=1.0)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", log.data("demo.clock")[0])


async def test_drain_ends_the_wait_for_the_next_period() -> None:
    drain = Drain()
    demo = asyncio.create_task(publish_demo(ScriptedLog(), drain, period_seconds=3600.0, read_host=read_host))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    drain.begin()
    async with asyncio.timeout(GUARD_SECONDS):
        await demo


@pytest.mark.parametrize("error", [LogFull("no room"), LogError("the disk answers no more")])
async def test_failing_log_is_retried_and_logged_once_at_each_end(error: LogError) -> None:
    log = ScriptedLog(range(3, 9), error)
    lines = await run_demo(log, 16)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "demo events are not stored"),
        ("info", "demo events are not stored: over"),
    ]
    assert lines[0]["reason"] == f"{type(error).__name__}: {error}"
    assert lines[1]["attempts"] == 6  # one per period: when the clock is refused, the host is not attempted
    assert log.data("demo.host")


async def test_unreadable_machine_leaves_only_the_clock() -> None:
    readings = 0

    def read() -> dict[str, Any]:
        nonlocal readings
        readings += 1
        if 2 <= readings <= 4:
            raise PermissionError("/proc/stat is hidden")
        return HOST

    log = ScriptedLog()
    lines = await run_demo(log, 20, read)
    assert [line["event"] for line in lines] == ["the machine cannot be read for the demo", "the machine cannot be read for the demo: over"]
    assert len(log.data("demo.clock")) - len(log.data("demo.host")) == 3


async def test_machine_is_read_in_a_thread_of_its_own() -> None:
    threads = set()

    def read() -> None:
        threads.add(threading.current_thread())

    await run_demo(ScriptedLog(), 5, read)
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_host_returns_the_load_since_the_previous_reading() -> None:
    host = HostReader()
    assert host.read() is None
    reading = host.read()
    assert reading is not None
    assert {name: type(value) for name, value in reading.items()} == {
        "cpu_percent": float,
        "memory_percent": float,
        "memory_total_bytes": int,
        "network_received_bytes_per_second": int,
        "network_sent_bytes_per_second": int,
    }
    assert 0 <= reading["cpu_percent"] <= 100
    assert 0 < reading["memory_percent"] <= 100
    assert reading["network_sent_bytes_per_second"] >= 0


async def topics(producer: ProducerProcess) -> dict[str, int]:
    """Return the number of events of each topic."""
    async with httpx.AsyncClient(trust_env=False) as http:
        listed = (await http.get(f"{producer.url}/topics")).raise_for_status().json()["topics"]
    return {topic["topic"]: topic["count"] for topic in listed}


async def test_producer_publishes_the_demo_unless_disabled_and_still_stops() -> None:
    async with start_producer(DEMO="true") as producer, start_producer(DEMO="false") as silent:
        async with asyncio.timeout(GUARD_SECONDS):
            while (await topics(producer)).keys() != {"demo.clock", "demo.host"}:
                await asyncio.sleep(0.05)
        assert await topics(silent) == {}
        for process in (producer, silent):
            process.terminate()
            assert await process.exit_status() == 0
            assert [line for line in await process.rest_of_log() if line["level"] != "info"] == []
