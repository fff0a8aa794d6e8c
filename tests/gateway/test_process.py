"""`python -m gateway`: how it starts, what it refuses, how it stops."""

import asyncio
import signal
from urllib.parse import urlsplit

import pytest

from tests.gateway.running import run, start_gateway


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_with_status_0(number: signal.Signals) -> None:
    async with start_gateway() as gateway:
        gateway.terminate(number)
        assert await gateway.exit_status() == 0
        log = await gateway.rest_of_log()
    assert [(fact["event"], fact["level"]) for fact in log] == [("draining", "info"), ("stopped", "info")]


async def test_port_in_use_ends_the_start_with_status_1_and_says_which() -> None:
    async with start_gateway() as gateway:
        port, admin_port = (str(urlsplit(url).port) for url in (gateway.url, gateway.admin))
        starts = ({"PORT": port, "ADMIN_PORT": "0"}, {"PORT": "0", "ADMIN_PORT": admin_port})
        answers = await asyncio.gather(*(asyncio.to_thread(run, **settings) for settings in starts))
    for answer, taken in zip(answers, (port, admin_port), strict=True):
        assert answer.returncode == 1
        assert answer.stderr.startswith("gateway: ")
        assert answer.stderr.count("\n") == 1
        assert "address already in use" in answer.stderr
        assert taken in answer.stderr
        assert '"listening"' not in answer.stdout
