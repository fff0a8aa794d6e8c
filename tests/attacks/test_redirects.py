"""An upstream with an open redirect: the gateway asks no other origin for it, and shows none its secrets."""

from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import running, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, chunk

SECRET = ("X-Secret", "s3cret")
EVENT = b"data: 1\n\n"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_another_origin_is_passed_on(tmp_path: Path, status: int) -> None:
    def play(asked: Asked) -> Script:
        if asked.target == "/here":
            return [EVENT_STREAM_HEAD, chunk(EVENT)]
        location = "/here" if asked.target == "/near" else f"{other.url}/admin"
        return [f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()]

    async with ScriptedUpstream([EVENT_STREAM_HEAD, chunk(b"data: not for you\n\n")]) as other, ScriptedUpstream(play) as upstream:
        route = shared("/", upstream.url, initial="history", request_headers=dict([SECRET]))
        async with running([route], tmp_path) as gateway, Downstream(gateway.port) as far, Downstream(gateway.port) as near:
            await far.ask("/far")
            head = (await far.answer()).head
            assert (head.status, head.value("Location")) == (status, f"{other.url}/admin")
            await near.ask("/near")
            assert (await (await near.answer()).receive(len(EVENT))).endswith(EVENT)
        assert other.requests == []
        assert [asked.header(SECRET[0]) for asked in upstream.requests if asked.target == "/here"] == [SECRET[1]]


async def test_path_of_a_client_that_an_upstream_redirects_from_stays_percent_encoded(tmp_path: Path) -> None:
    def play(asked: Asked) -> Script:
        return [b"HTTP/1.1 302 Found\r\nLocation: here\r\nContent-Length: 0\r\n\r\n"] if asked.target.endswith("/there") else stream

    planted, stream = "/a%20HTTP%2F1.1%0d%0aX:%20%3Fy%23", [EVENT_STREAM_HEAD, chunk(EVENT)]
    async with ScriptedUpstream(play) as upstream:
        async with running([shared("/", upstream.url, initial="history")], tmp_path) as gateway, Downstream(gateway.port) as client:
            await client.ask(f"{planted}/there")
            assert (await (await client.answer()).receive(len(EVENT))).endswith(EVENT)
        assert [asked.target for asked in upstream.requests] == [f"{planted}/there", f"{planted}/here"]
