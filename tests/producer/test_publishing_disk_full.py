"""A producer on a real device that fills up: publishers get an error, subscribers continue, and it recovers by itself."""

import asyncio
import json
import os
from pathlib import Path

import aiohttp

from eventstream.client import EventSource
from tests.kit.producer import start_producer
from tests.kit.waiting import GUARD_SECONDS


async def test_full_device_is_507_while_subscribers_continue_and_publishing_recovers_with_space(device: Path) -> None:
    others = device / "others"
    async with start_producer(LOG_DIR=str(device / "log")) as producer, aiohttp.ClientSession() as http:

        async def publish(data: str) -> int:
            async with http.post(f"{producer.url}/topics/a/events", json={"data": data}) as answer:
                if answer.status == 507:
                    assert answer.content_type == "application/problem+json"
                    assert answer.headers["Retry-After"]
                return answer.status

        async with EventSource(f"{producer.url}/topics/a/events?from=start", read_timeout_seconds=GUARD_SECONDS) as source:
            events = aiter(source)
            assert await publish("0") == 201
            assert (await anext(events)).data == "0"
            room = os.statvfs(device)
            with others.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - 200_000)
            stored = 0
            while (status := await publish("x" * 20_000)) == 201:
                stored += 1
            assert status == 507
            assert await publish("x" * 20_000) == 507
            async with asyncio.timeout(GUARD_SECONDS):
                assert [len((await anext(events)).data) for _ in range(stored)] == [20_000] * stored  # exactly the acknowledged events
            async with http.get(f"{producer.url}/topics/a/events?from=start&follow=false") as answer:
                assert (await answer.read()).count(b"\ndata: ") == stored + 1
            async with http.get(f"{producer.url}/readyz") as answer:
                assert answer.status == 200
            others.unlink()
            async with asyncio.timeout(GUARD_SECONDS):
                while await publish("room") != 201:
                    await asyncio.sleep(0.05)
                assert (await anext(events)).data == "room"
        producer.terminate()
        log = await producer.rest_of_log()
    told = [fact["event"] for fact in log if fact["event"].startswith("event log can")]
    assert told == ["event log cannot be written", "event log can be written again"], json.dumps(log)
