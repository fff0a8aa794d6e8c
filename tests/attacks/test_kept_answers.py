"""A stranger who repeats what another client asked, and comes for its kept answer."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk

KEY = ("Idempotency-Key", "k-1")
BODY = b'{"ask": "something"}'
OWNERS: Mapping[str, tuple[tuple[str, str], str]] = {
    "Authorization": (("Authorization", "Bearer alice"), ""),
    "X-Api-Key": (("X-Api-Key", "alice"), ""),
    "api-key": (("api-key", "alice"), ""),
    "Cookie": (("Cookie", "session=alice"), ""),
    "query key": (("X-Other", "1"), "?model=m&key=alice"),
    "query token": (("X-Other", "1"), "?%74oken=alice"),
}


def answer_by_request(asked: Asked) -> Script:
    """Answer with the name of the client."""
    owner = next((value for name in ("Authorization", "X-Api-Key", "Api-Key", "Cookie") if (value := asked.header(name))), asked.target)
    return [EVENT_STREAM_HEAD, chunk(b"data: for %b\n\n" % owner.encode()), LAST_CHUNK]


def resumable(upstream: str, **keys: object) -> dict[str, object]:
    return {"path": "/ask", "upstream": upstream, "mode": "resumable"} | keys


async def ask(
    gateway: Gateway, target: str, fields: list[tuple[str, str]], method: str = "POST", body: bytes = BODY, source: str = "127.0.0.1"
) -> tuple[int, bytes, str]:
    """Return status, body and stream id of an answer."""
    async with Downstream(gateway.port, source=source) as client:
        await client.ask(target, method, fields, body)
        answer = await client.answer(method)
        return answer.head.status, await answer.to_end(), answer.head.value("Stream-Id") or ""


@pytest.mark.parametrize("place", OWNERS)
async def test_key_and_body_of_another_client_find_nothing_and_squat_nothing(tmp_path: Path, place: str) -> None:
    field, query = OWNERS[place]
    mallory = [(field[0], field[1].replace("alice", "mallory"))], query.replace("alice", "mallory")
    async with ScriptedUpstream(answer_by_request) as upstream, running([resumable(upstream.url)], tmp_path) as gateway:
        for fields, own_query in (mallory, ([], ""), ([field], query)):  # the strangers come first, with another body
            status, _, _ = await ask(gateway, "/ask" + own_query, [*fields, KEY], body=BODY if fields == [field] else b"squatted")
            assert status == 200
        status, mine, stream = await ask(gateway, "/ask" + query, [field, KEY])
        assert (status, b"alice" in mine, len(upstream.requests)) == (200, True, 3)
        for fields, own_query in (mallory, ([], "")):
            status, stolen, _ = await ask(gateway, "/ask" + own_query, [*fields, ("Idempotency-Key", "k-2")])
            assert (status, b"alice" in stolen) == (200, False)
            status, stolen, _ = await ask(gateway, f"/streams/{stream}{own_query}", fields, "GET", b"")
            assert (status, b"alice" in stolen) == (403, False)
        assert (await ask(gateway, f"/streams/{stream}{query}", [field], "GET", b""))[:2] == (200, mine)


@pytest.mark.parametrize(("anonymous_keys", "asked"), [("by-address", 2), ("anybody", 1), ("off", 4)])
async def test_key_without_credentials_is_its_address_s_unless_the_route_says_otherwise(
    tmp_path: Path, anonymous_keys: str, asked: int
) -> None:
    async with ScriptedUpstream(answer_by_request) as upstream:
        async with running([resumable(upstream.url, anonymous_keys=anonymous_keys)], tmp_path) as gateway:
            for source in ("127.0.0.1", "127.0.0.2"):
                for _ in range(2):
                    assert (await ask(gateway, "/ask", [KEY], source=source))[0] == 200
        assert len(upstream.requests) == asked


async def test_only_the_named_cookies_are_credentials(tmp_path: Path) -> None:
    async with ScriptedUpstream(answer_by_request) as upstream:
        async with running([resumable(upstream.url, credential_cookies=["session"])], tmp_path) as gateway:
            for cookies in ("session=alice; seen=1", "seen=2; session=alice", "session=mallory; seen=1"):
                assert (await ask(gateway, "/ask", [("Cookie", cookies), KEY]))[0] == 200
        assert len(upstream.requests) == 2
