"""Several workers: who asks is found out once, and a request that is handed over to another worker says so in a way that no client can."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.auth.conftest import World, started
from tests.auth.issuer import Issuer
from tests.auth.signing import bearer, hs_token
from tests.scripted_upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = b'{"message": "hello"}'
CONNECTIONS = 12
"""So many requests that some come to the other worker, but for one time in 2048."""


def _script(asked: Asked) -> Script:
    return [EVENT_STREAM_HEAD, chunk(b"data: one\n\n"), chunk(b"data: two\n\n"), LAST_CHUNK]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, Path]]:
    """A gateway with two workers, and the folder for its sockets."""
    directory, sockets = tmp_path_factory.mktemp("workers"), tmp_path_factory.mktemp("s")
    auth = {"kind": "jwt", "secret_env": "TOKEN_SECRET", "query_parameter": "access_token", "subject_header": "X-Subject"}
    auth |= {"cookie": "session", "leeway_seconds": 0}
    async with ScriptedUpstream(_script) as upstream, Issuer() as issuer:
        route = {"path": "/kept", "upstream": upstream.url, "mode": "resumable", "heartbeat_seconds": 0, "auth": auth}
        async with started(directory, [route], {"TMPDIR": str(sockets)}, workers=2) as (gateway, port):
            yield World(gateway, port, upstream, issuer), sockets


def digest(subject: str) -> str:
    """What workers tell each other of a subject."""
    return hashlib.sha256(json.dumps(["subject", "", subject]).encode()).hexdigest()


async def test_key_finds_its_stream_in_any_worker_for_the_same_subject_only(pair: tuple[World, Path]) -> None:
    world, _ = pair
    key = ("Idempotency-Key", "k")
    spoofed = ("Gateway-Caller", digest("alice"))
    ids = {"alice": set(), "bob": set()}
    for number in range(CONNECTIONS):
        for subject in ids:
            text = hs_token(sub=subject, jti=str(number))
            reply = await world.ask(f"/kept/key?access_token={text}", key, spoofed, ("X-Subject", "root"), method="POST", body=BODY)
            assert reply.status == 200
            ids[subject].add(reply.head.value("Stream-Id"))
    assert len(ids["alice"]) == len(ids["bob"]) == 1
    assert ids["alice"] != ids["bob"]
    asked = world.asked("/kept/key")
    assert [each.target for each in asked] == ["/kept/key"] * 2
    assert {each.header("X-Subject") for each in asked} == {"alice", "bob"}
    assert [each.header("Gateway-Caller") for each in asked] == [None, None]


async def test_stream_is_found_in_any_worker_by_its_subject_only(pair: tuple[World, Path]) -> None:
    world, _ = pair
    opened = await world.ask("/kept/own", bearer(hs_token(sub="alice")), method="POST", body=BODY)
    path = f"/streams/{opened.head.value('Stream-Id')}"
    spoofed = ("Gateway-Caller", digest("alice"))
    page = ("Origin", f"http://127.0.0.1:{world.port}")
    for _ in range(CONNECTIONS):
        assert (await world.ask(path, bearer(hs_token(sub="alice")))).body == opened.body
        assert (await world.ask(f"{path}?access_token={hs_token(sub='alice')}")).body == opened.body
        assert (await world.ask(path, ("Cookie", f"session={hs_token(sub='alice')}"), page)).body == opened.body
        assert (await world.ask(path, ("Cookie", f"session={hs_token(sub='alice')}"), ("Origin", "http://other"))).status == 403
        assert (await world.ask(path, spoofed)).status == 401
        assert (await world.ask(path, bearer(hs_token(sub="bob")), spoofed)).status == 403
    assert len(world.asked("/kept/own")) == 1


async def test_nobody_else_on_the_machine_reaches_the_sockets_between_workers(pair: tuple[World, Path]) -> None:
    _, sockets = pair
    found = list(sockets.rglob("*.peer"))
    assert len(found) == 2
    for socket in found:
        assert socket.parent.stat().st_mode & 0o077 == 0
