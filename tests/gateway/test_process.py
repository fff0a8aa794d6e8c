"""`python -m gateway`: how it starts, what it refuses, how it stops."""

import asyncio
import signal
import socket

from tests.kit.gateway_process import run, start_gateway


async def test_sigint_ends_it_with_status_0() -> None:
    async with start_gateway(plain=True) as gateway:
        gateway.terminate(signal.SIGINT)
        assert await gateway.exit_status() == 0
        log = await gateway.rest_of_log()
    assert [(fact["event"], fact["level"]) for fact in log] == [("draining", "info"), ("stopped", "info")]


async def test_port_in_use_ends_the_start_with_status_1_and_says_which() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = str(holder.getsockname()[1])
        starts = ({"PORT": taken, "ADMIN_PORT": "0"}, {"PORT": "0", "ADMIN_PORT": taken})
        answers = await asyncio.gather(*(asyncio.to_thread(run, **settings) for settings in starts))
    for answer in answers:
        assert answer.returncode == 1
        assert answer.stderr.startswith("gateway: ")
        assert answer.stderr.count("\n") == 1
        assert "address already in use" in answer.stderr
        assert taken in answer.stderr
        assert '"listening"' not in answer.stdout
