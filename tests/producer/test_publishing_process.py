"""The producer as a process: acknowledged events survive `kill -9`, and a body of any length takes little memory."""

import asyncio
import itertools
import json
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from eventstream import Event
from tests.kit.producer import ProducerProcess, events_of, start_producer
from tests.kit.stack import environment, resident_bytes, service_command
from tests.kit.waiting import GUARD_SECONDS

BATCH = 7
LIVES = 4
LINES = 200_000
MEMORY_MIB = 30


@dataclass
class Acknowledged:
    """The acknowledgements of publishers: the data that each id must have."""

    data: dict[str, str] = field(default_factory=dict)
    refused: int = 0


async def publish(http: aiohttp.ClientSession, url: str, name: str, kind: str, acknowledged: Acknowledged) -> None:
    """Publish until the producer is gone: single events, arrays, or lines that make one batch each."""
    for number in itertools.count():
        data = [f"{name}.{number}/{index}" for index in range(1 if kind == "single" else BATCH)]
        lines = [json.dumps({"data": text}) for text in data]
        body = {"single": lines[0], "array": f"[{','.join(lines)}]", "lines": "\n".join(lines)}[kind]
        media_type = "application/x-ndjson" if kind == "lines" else "application/json"
        try:
            async with http.post(f"{url}/topics/{name}/events", data=body, headers={"Content-Type": media_type}) as answer:
                assert answer.status == 201, await answer.text()
                said = await answer.json()
        except (aiohttp.ClientError, ConnectionError):
            acknowledged.refused += 1
            return
        acknowledged.data.update(zip(said.get("ids") or [said["id"]], data, strict=True))


async def replay(producer: ProducerProcess) -> list[Event]:
    async with aiohttp.ClientSession() as http, http.get(f"{producer.url}/topics/>/events?from=start&follow=false") as answer:
        body = await answer.read()
    return events_of(body.removeprefix(b"retry: 3000\n") or b"\n\n")


async def test_every_acknowledged_event_survives_kill_9_and_no_batch_is_partial(tmp_path: Path) -> None:
    chance = random.Random(9)
    acknowledged = Acknowledged()
    for life in range(LIVES + 1):
        async with start_producer(LOG_DIR=str(tmp_path)) as producer, aiohttp.ClientSession() as http:
            check(await replay(producer), acknowledged)
            if life == LIVES:
                break
            async with asyncio.TaskGroup() as publishers:
                for number in range(16):
                    kind = ("single", "array", "lines")[number % 3]
                    publishers.create_task(publish(http, producer.url, f"life{life}-{number}", kind, acknowledged))
                enough = len(acknowledged.data) + chance.randrange(300, 900)
                async with asyncio.timeout(GUARD_SECONDS):
                    while len(acknowledged.data) < enough:
                        await asyncio.sleep(0.001)
                producer.terminate(signal.SIGKILL)
    assert acknowledged.refused == LIVES * 16


def check(events: list[Event], acknowledged: Acknowledged) -> None:
    """Assert that every acknowledged event exists once and every batch is whole."""
    found = {event.id: event.data for event in events}
    assert acknowledged.data.items() <= found.items()
    assert len(set(found.values())) == len(events) == len(found)
    whole: dict[str, list[str]] = {}
    for event in events:
        batch, _, index = event.data.partition("/")
        whole.setdefault(batch, []).append(index)
    assert {tuple(indexes) for indexes in whole.values()} <= {("0",), tuple(map(str, range(BATCH)))}


async def test_memory_does_not_grow_with_the_lines_of_a_body() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for start in range(0, LINES, 500):
            yield b"".join(b'{"data": {"number": %d, "filler": "%b"}}\n' % (number, b"x" * 60) for number in range(start, start + 500))

    async with start_producer(plain=True, LOG_SYNC="interval") as producer, aiohttp.ClientSession() as http:
        url = f"{producer.url}/topics/a/events"
        headers = {"Content-Type": "application/x-ndjson"}
        async with http.post(url, data=b'{"data": 1}\n' * 5000, headers=headers) as answer:
            assert answer.status == 201
        before = highest = resident_bytes(producer.pid)
        sending = asyncio.create_task(http.post(url, data=lines(), headers=headers).__aenter__())
        while not sending.done():
            highest = max(highest, resident_bytes(producer.pid))
            await asyncio.sleep(0.02)
        answer = await sending
        assert (answer.status, (await answer.json())["count"]) == (201, LINES)
        answer.close()
    assert highest - before < MEMORY_MIB * 2**20, f"{(highest - before) / 2**20:.0f} MiB"


async def test_subscribers_of_a_stopping_process_get_a_retry_and_resume_without_loss(tmp_path: Path) -> None:
    async with start_producer(LOG_DIR=str(tmp_path), HEARTBEAT_SECONDS="600") as producer, AsyncExitStack() as streams:
        http = await streams.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        answers = []
        for _ in range(200):
            answers.append(await streams.enter_async_context(http.get(f"{producer.url}/topics/a/events")))
            assert await answers[-1].content.readline() == b"retry: 3000\n"
        async with http.post(f"{producer.url}/topics/a/events", json={"data": 1}) as answer:
            first = (await answer.json())["id"]
        producer.terminate()
        async with asyncio.timeout(GUARD_SECONDS):
            bodies = [(await answer.read()).split(b"\n\n") for answer in answers]
        assert await producer.exit_status() == 0
        log = await producer.rest_of_log()
    assert {body[0] for body in bodies} == {f"id: {first}\ndata: 1".encode()}
    assert len({body[1] for body in bodies}) > 100
    assert all(len(body) == 2 and 1500 <= int(body[1].removeprefix(b"retry: ")) <= 4500 for body in bodies)
    assert not [fact for fact in log if fact["level"] != "info"]
    async with start_producer(LOG_DIR=str(tmp_path)) as producer:
        assert [event.id for event in await replay(producer)] == [first]


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    environ = environment("producer", {"PORT": "0", "LOG_DIR": str(directory)})
    return subprocess.run(service_command("producer"), env=environ, capture_output=True, text=True, timeout=GUARD_SECONDS)


async def test_log_that_another_process_has_open_ends_the_start_with_status_3(tmp_path: Path) -> None:
    async with start_producer(LOG_DIR=str(tmp_path)):
        answer = await asyncio.to_thread(run, tmp_path)
    assert answer.returncode == 3
    assert answer.stderr.startswith("producer: ")
    assert str(tmp_path) in answer.stderr


def test_damaged_log_ends_the_start_with_status_3_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite3").write_bytes(b"no database " * 1000)
    answer = run(tmp_path)
    assert answer.returncode == 3
    assert "python -m producer check" in answer.stderr
