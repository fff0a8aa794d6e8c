import asyncio
import re

import pytest
from httpx_sse import aconnect_sse

from producer.settings import Settings
from tests.kit.producer import serve
from tests.kit.waiting import GUARD_SECONDS


async def test_alive_and_ready_until_the_drain_begins() -> None:
    async with serve(Settings()) as producer:
        assert (await producer.http.get("/livez")).json() == {"status": "alive"}
        assert (await producer.http.get("/readyz")).json() == {"status": "ready"}
        producer.drain.begin()
        ready = await producer.http.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready", "reason": "draining"})
        assert (await producer.http.get("/livez")).status_code == 200


async def test_stream_requested_during_a_drain_is_refused_with_retry_after() -> None:
    async with serve(Settings()) as producer:
        producer.drain.begin()
        for path in ("/", "/plain"):
            answer = await producer.http.get(path)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_drain_ends_an_open_stream_at_a_block_boundary_whatever_it_waits_for(path: str) -> None:
    async with serve(Settings(heartbeat_seconds=0.05)) as producer:
        async with producer.http.stream("GET", path, params={"interval_ms": 60_000}) as answer:
            body = answer.aiter_bytes()
            async with asyncio.timeout(GUARD_SECONDS):
                received = [await anext(body), await anext(body)]
                producer.drain.begin()
                received += [part async for part in body]
        assert received[1] == b":\n\n"
        assert re.fullmatch(rb"(:\n\n)*retry: [0-9]+\n", b"".join(received[2:]))
        assert await producer.meter("producer_streams_ended_total") == 1


@pytest.mark.parametrize("path", ["/", "/topics/a/events"])
async def test_drain_is_no_event_for_a_reader_that_takes_each_block_for_one(path: str) -> None:
    """httpx-sse makes an event with empty data of a block that has only `retry`, and its `json()` raises."""
    async with serve(Settings(text="1", heartbeat_seconds=0.05)) as producer:
        await producer.log.append("a", [b"data: 1\n\n"])
        query = {"interval_ms": "60000", "repeat": "2", "from": "start"}
        async with aconnect_sse(producer.http, "GET", path, params=query) as source:
            events = source.aiter_sse()
            async with asyncio.timeout(GUARD_SECONDS):
                seen = [(await anext(events)).json()]
                producer.drain.begin()
                seen += [event.json() async for event in events]
    assert seen == [1]


async def test_metrics_count_streams_events_bytes_and_ends_by_reason() -> None:
    async with serve(Settings(interval_ms=0, text="ab")) as producer:
        for path in ("/", "/plain"):
            size = len((await producer.http.get(path)).content)
            text = (await producer.http.get("/metrics")).text
            for line in (
                f'producer_streams_open{{route="GET {path}"}} 0.0',
                f'producer_events_sent_total{{route="GET {path}"}} 2.0',
                f'producer_bytes_sent_total{{route="GET {path}"}} {float(size)}',
                f'producer_streams_ended_total{{reason="completed",route="GET {path}"}} 1.0',
            ):
                assert line in text.splitlines()


async def test_two_apps_in_one_process_have_separate_metrics() -> None:
    async with serve(Settings(interval_ms=0)) as one, serve(Settings(interval_ms=0)) as other:
        await one.http.get("/")
        assert await one.meter("producer_streams_ended_total") == 1
        assert await other.meter("producer_streams_ended_total") == 0
