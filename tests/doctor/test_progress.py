"""Test the progress that the doctor prints while it listens."""

import asyncio
import io

from gateway.doctor.listening import Recording
from gateway.doctor.progress import Progress
from tests.doctor.traces import numbered


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


async def test_line_on_a_terminal_is_overwritten_and_finally_cleared() -> None:
    terminal = Terminal()
    progress = Progress(terminal, 30)
    watch = progress.watcher("through ")
    task = asyncio.create_task(progress.run())
    recording = Recording()
    recording.feed(b"".join(numbered(3)))
    async with asyncio.timeout(10):
        while "no answer yet" not in terminal.getvalue():
            await asyncio.sleep(0.05)
        watch(recording)
        while "through 3 blocks, 54 bytes, last byte" not in terminal.getvalue():
            await asyncio.sleep(0.05)
        recording.upstream_ended()
        while "through 3 blocks, 54 bytes, ended" not in terminal.getvalue():
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
