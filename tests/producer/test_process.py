"""`python -m producer` as a process: what it logs, how it stops, what it refuses."""

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from producer.settings import Settings
from tests.kit.producer import ProducerProcess, start_producer
from tests.kit.stack import EXIT_SECONDS, environment
from tests.kit.waiting import GUARD_SECONDS

FIRST_BLOCK = "event: message\nretry: 15000\ndata: 七\n\n".encode()


async def open_stream(producer: ProducerProcess, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that has requested a stream and has read the head and the first event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", producer.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: producer\r\n\r\n".encode())
    async with asyncio.timeout(GUARD_SECONDS):
        await reader.readuntil(b"\r\n\r\n")
        assert await read_chunk(reader) == FIRST_BLOCK
    return reader, writer


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "producer", *arguments]
    return subprocess.run(command, env=environment("producer", settings), capture_output=True, text=True, timeout=GUARD_SECONDS)


@pytest.mark.parametrize("path", ["/", "/plain"])
async def test_client_that_leaves_ends_its_stream_at_once_and_is_logged_with_the_count(path: str) -> None:
    async with start_producer() as producer:
        _, writer = await open_stream(producer, f"{path}?interval_ms=60000")
        left_at = time.monotonic()
        writer.close()
        line = await producer.log_line("stream ended")
        assert time.monotonic() - left_at < 10  # the first heartbeat, which would detect it too, is due after 15 s
        assert (line["route"], line["reason"], line["events"], line["bytes"]) == (f"GET {path}", "left", 1, len(FIRST_BLOCK))


async def test_stream_that_ends_by_itself_is_logged_once_as_completed() -> None:
    async with start_producer(TEXT="七", INTERVAL_MS="0") as producer:
        reader, writer = await open_stream(producer, "/?repeat=3")
        assert [await read_chunk(reader), await read_chunk(reader), await reader.readexactly(5)] == [FIRST_BLOCK] * 2 + [b"0\r\n\r\n"]
        writer.close()
        line = await producer.log_line("stream ended")
        assert (line["reason"], line["events"], line["level"], line["service"]) == ("completed", 3, "info", "producer")
        producer.terminate()
        assert await producer.exit_status() == 0
        assert "stream ended" not in [fact["event"] for fact in await producer.rest_of_log()]


async def test_200_open_streams_end_after_a_jittered_retry_line_and_the_exit_status_is_0_in_time() -> None:
    async with start_producer(DRAIN_SECONDS="8") as producer, AsyncExitStack() as clients:
        streams = []
        for number in range(200):
            reader, writer = await open_stream(producer, f"{('/', '/plain')[number % 2]}?interval_ms=60000")
            clients.callback(writer.close)
            streams.append(reader)
        told_at = time.monotonic()
        producer.terminate()
        async with asyncio.timeout(GUARD_SECONDS):
            ends = [(await read_chunk(reader), await reader.read()) for reader in streams]
        assert await producer.exit_status() == 0
        assert time.monotonic() - told_at < 8 + EXIT_SECONDS
        log = await producer.rest_of_log()
    assert {end for _, end in ends} == {b"0\r\n\r\n"}
    retries = [int(line.removeprefix(b"retry: ").removesuffix(b"\n")) for line, _ in ends]
    assert all(7500 <= retry <= 22500 for retry in retries)
    assert len(set(retries)) > 100
    assert [fact["reason"] for fact in log if fact["event"] == "stream ended"] == ["drained"] * 200
    assert not [fact for fact in log if fact["level"] != "info"]


async def test_clients_that_do_not_read_cannot_delay_the_exit() -> None:
    async with start_producer(DRAIN_SECONDS="4", INTERVAL_MS="0", TEXT="七" + "x" * 100_000) as producer, AsyncExitStack() as clients:
        for path in ("/", "/plain"):
            reader, writer = await asyncio.open_connection("127.0.0.1", producer.port, limit=2**10)
            clients.callback(writer.close)
            writer.write(f"GET {path}?split=word&repeat=1000 HTTP/1.1\r\nHost: producer\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
        told_at = time.monotonic()
        producer.terminate()
        assert await producer.exit_status() == 0
        assert time.monotonic() - told_at < 4 + EXIT_SECONDS
        log = await producer.rest_of_log()
    assert len([fact for fact in log if fact["event"] == "stream ended"]) == 2
    assert not [fact for fact in log if fact["level"] != "info"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_without_streams_ends_it_cleanly(number: signal.Signals) -> None:
    async with start_producer() as producer:
        producer.terminate(number)
        assert await producer.exit_status() == 0


def test_help_lists_every_setting() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    for name in Settings.model_fields:
        assert f"PRODUCER_{name.upper()}" in answer.stdout


def test_unknown_variable_stops_the_start_and_names_the_nearest() -> None:
    answer = run(INTERVAL_SM="5")
    assert answer.returncode == 2
    assert answer.stderr == "producer: PRODUCER_INTERVAL_SM is not a setting; the nearest is PRODUCER_INTERVAL_MS\n"


def test_value_out_of_bounds_stops_the_start_with_what_is_allowed() -> None:
    answer = run(PORT="70000")
    assert answer.returncode == 2
    assert answer.stderr == "producer: PRODUCER_PORT='70000': Input should be less than or equal to 65535\n"


async def test_port_in_use_ends_the_start_with_status_3(tmp_path: Path) -> None:
    async with start_producer() as producer:
        answer = await asyncio.to_thread(run, PORT=str(producer.port), LOG_DIR=str(tmp_path))
    assert answer.returncode == 3
    assert "address already in use" in answer.stdout
