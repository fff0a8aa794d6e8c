"""Upstreams whose answers have a head that cannot be passed on: a 502 and one line in the log, in every mode."""

from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running
from tests.kit.upstream import ScriptedUpstream

MODES = {"direct": "GET", "shared": "GET", "resumable": "POST"}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n%b\r\ndata: x\n\n"
HEADS = {
    "vertical tab in a field": STREAM % b"X: a\x0bb\r\n",
    "escape in a hop-by-hop field": STREAM % b"Keep-Alive: a\x1bb\r\n",
    "DEL in the type": STREAM.replace(b"stream", b"stream; x=\x7f") % b"",
    "NUL in the reason": STREAM.replace(b"OK", b"O\0K") % b"",
    "switch to another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01x",
    "switch without a field": b"HTTP/1.1 101 x\r\n\r\n",
    "status below 100": (STREAM % b"").replace(b"200", b"042"),
}


@pytest.mark.parametrize("fault", HEADS)
async def test_head_that_cannot_be_passed_on_is_a_502(tmp_path: Path, fault: str) -> None:
    async with ScriptedUpstream([HEADS[fault]]) as upstream:
        routes = [{"path": f"/{mode}", "upstream": upstream.url, "mode": mode, "wait_seconds": 0} for mode in MODES]
        async with running(routes, tmp_path) as gateway:
            for mode, method in MODES.items():
                async with Downstream(gateway.port) as client:
                    await client.ask(f"/{mode}", method, body=b"{}" if method == "POST" else b"")
                    answer = await client.answer(method)
                    assert (mode, answer.head.status) == (mode, 502), await answer.to_end()
        log = (tmp_path / "gateway.log").read_text()
        assert (log.count('"event": "no answer"'), log.count('"level": "error"')) == (len(MODES), 0), log
