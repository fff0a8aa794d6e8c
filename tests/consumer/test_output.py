"""Standard output with a reader that is slow, stalled or gone."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from consumer import output as output_module
from consumer.output import Output
from tests.kit.consumer import eventually

LINE = b"x" * 9_999 + b"\n"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long enough for readers on a busy machine."""
    monkeypatch.setattr(output_module, "STALL_SECONDS", 60)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


def let_go(writing: int) -> None:
    """Close the pipe for its reader, but not the descriptor, which a thread may still hold."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, writing)
    os.close(null)


def read_all(reading: int, into: list[bytes], piece: int = 65_536, pause: float = 0.0) -> threading.Thread:
    def run() -> None:
        while data := os.read(reading, piece):
            into.append(data)
            time.sleep(pause)
        os.close(reading)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


async def test_slow_reader_slows_the_writer_and_gets_every_line(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    output = Output(writing)
    read: list[bytes] = []
    thread = read_all(reading, read, pause=0.005)
    for _ in range(10):
        await output.put([LINE] * 50)
    output.close()
    let_go(writing)
    await asyncio.to_thread(thread.join)
    assert b"".join(read) == LINE * 500
    assert output.left_out == 0


async def test_stalled_reader_is_waited_for_once_and_its_lost_lines_are_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    monkeypatch.setattr(output_module, "STALL_SECONDS", 0.2)
    output = Output(writing)
    begun = time.monotonic()
    await output.put([LINE] * 300)  # 3 MB, the pipe holds 64 KiB and the buffer 1 MiB
    await output.put([LINE] * 300)
    assert 0.2 <= time.monotonic() - begun < 5
    assert output.left_out > 400
    read: list[bytes] = []
    thread = read_all(reading, read)
    await eventually(lambda: True if not output._buffered else None)
    with capture_logs() as facts:
        await output.put([b"back\n"])
    [fact] = facts
    assert fact["lines"] == output.left_out
    output.close()
    await eventually(lambda: True if b"".join(read).endswith(b"back\n") else None)
    lines = b"".join(read).splitlines(keepends=True)
    assert lines == [LINE] * (600 - output.left_out) + [b"back\n"]
    let_go(writing)
    await asyncio.to_thread(thread.join)


async def test_stalled_reader_does_not_delay_the_exit(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "STALL_SECONDS", 0.1)
    output = Output(pipe[1])
    await output.put([LINE] * 50)
    begun = time.monotonic()
    output.close()
    assert time.monotonic() - begun < 5
    os.close(pipe[0])
    await eventually(lambda: True if output.gone else None)  # its thread holds a descriptor whose number the next test gets


async def test_reader_that_is_gone_loses_lines_and_blocks_nothing(pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = pipe
    os.close(reading)
    output = Output(writing)
    await output.put([LINE])
    await eventually(lambda: True if output.gone else None)
    async with asyncio.timeout(30):
        await output.put([LINE] * 1000)
    assert output.left_out == 1000
    assert "standard output is gone" in capfd.readouterr().err


async def test_log_records_never_wait(pipe: tuple[int, int]) -> None:
    output = Output(pipe[1])
    begun = time.monotonic()
    for _ in range(300):
        assert output.write("x" * 10_000) == 10_000
    output.flush()
    assert time.monotonic() - begun < 5
    assert output.left_out > 100
    os.close(pipe[0])
    await eventually(lambda: True if output.gone else None)


async def test_non_blocking_descriptor_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    output = Output(writing)
    read: list[bytes] = []
    thread = read_all(reading, read)
    await output.put([LINE] * 90)
    output.close()
    await eventually(lambda: True if sum(map(len, read)) == 90 * len(LINE) else None)
    let_go(writing)
    await asyncio.to_thread(thread.join)
