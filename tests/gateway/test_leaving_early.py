"""A client that disconnects before it has an answer is not an error."""

import asyncio
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.kit.gateway_process import start_gateway
from tests.kit.upstream import EVENT_STREAM_HEAD, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS


@pytest.mark.parametrize("mode", ["direct", "shared"])
async def test_client_that_hangs_up_behind_its_request_is_no_error_in_the_log(mode: str, tmp_path: Path) -> None:
    async with ScriptedUpstream(lambda asked: [EVENT_STREAM_HEAD + chunk(b"data: a\n\n"), Silence()]) as upstream:
        config = tmp_path / "routes.toml"
        config.write_text(f'[[routes]]\npath = "/"\nupstream = "{upstream.url}"\nmode = "{mode}"\n')
        async with start_gateway(CONFIG=str(config)) as gateway, asyncio.timeout(3 * GUARD_SECONDS):
            address = urlsplit(gateway.url)
            request = f"GET / HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode()
            staying, stayer = await asyncio.open_connection(address.hostname, address.port)
            stayer.write(request)
            await staying.readuntil(b"\r\n\r\n")  # so the stream is open, and others are answered at once
            for _ in range(20):
                _, leaver = await asyncio.open_connection(address.hostname, address.port)
                leaver.write(request)
                leaver.close()
            stayer.close()
            gateway.terminate(signal.SIGTERM)
            log = await gateway.rest_of_log()
    assert [line for line in log if line["level"] not in ("info", "debug")] == []
