"""What an attacker can do to the histories of shared streams."""

from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk

EVENTS = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n"


@pytest.mark.parametrize(("status", "forgotten"), [(204, True), (200, True), (302, False), (304, False), (404, False)])
async def test_only_a_deletion_that_was_done_clears_a_history(tmp_path: Path, status: int, forgotten: bool) -> None:
    def play(asked: Asked) -> Script:
        if asked.method == "DELETE":
            length = b"" if status in (204, 304) else b"Content-Length: 0\r\n"
            return [b"HTTP/1.1 %d Answer\r\n%b\r\n" % (status, length)]
        return [EVENT_STREAM_HEAD, chunk(EVENTS), Silence()]

    async with ScriptedUpstream(play) as upstream, running([shared("/", upstream.url, initial="history")], tmp_path) as gateway:
        async with Downstream(gateway.port) as first, Downstream(gateway.port) as attacker, Downstream(gateway.port) as back:
            await first.ask("/")
            await (await first.answer()).receive(len(EVENTS))
            await attacker.ask("/", "DELETE")
            assert (await attacker.answer("DELETE")).head.status == status
            await back.ask("/", headers=[("Last-Event-ID", "1")])
            await (await back.answer()).receive_until(lambda body: b"data: b\n\n" in body)
        assert len([asked for asked in upstream.requests if asked.method == "GET"]) == (2 if forgotten else 1)
