"""Test authentication with several workers: one worker authenticates a request, and clients cannot forge a hand-off to another."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.policy.secrets import digest_of
from tests.auth.conftest import World, started
from tests.auth.issuer import Issuer
from tests.auth.signing import bearer, hs_token
from tests.kit.downstream import Downstream, End, connected
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = b'{"message": "hello"}'
OLD_KEY, NEW_KEY, OTHER_KEY = "the-old-key-of-the-shop-1", "the-new-key-of-the-shop-2", "the-key-of-a-bakery-3"
CONNECTIONS = 18
"""Enough requests that some reach the other worker, except in one of 131,072 runs."""


def _script(asked: Asked) -> Script:
    if asked.target.endswith("/long"):
        return [EVENT_STREAM_HEAD, chunk(b"data: one\n\n"), Silence()]
    return [EVENT_STREAM_HEAD, chunk(b"data: one\n\n"), chunk(b"data: two\n\n"), LAST_CHUNK]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, Path]]:
    """Yield a gateway with two workers, and the folder of its sockets."""
    directory, sockets = tmp_path_factory.mktemp("workers"), tmp_path_factory.mktemp("s")
    auth = {"kind": "jwt", "secret_env": "TOKEN_SECRET", "query_parameter": "access_token", "subject_header": "X-Subject"}
    auth |= {"cookie": "session", "leeway_seconds": 0}
    async with ScriptedUpstream(_script) as upstream, Issuer() as issuer:
        routes = [kept("/kept", upstream, auth), kept("/keyed", upstream, keys(OLD_KEY, NEW_KEY))]
        async with started(directory, routes, {"TMPDIR": str(sockets)}, workers=2) as (gateway, port):
            yield World(gateway, port, upstream, upstream, issuer), sockets


def kept(path: str, upstream: ScriptedUpstream, auth: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "upstream": upstream.url, "mode": "resumable", "heartbeat_seconds": 0, "auth": auth}


def keys(*keys: str) -> dict[str, Any]:
    return {"kind": "api-keys", "keys": [{"name": "shop", "sha256": digest_of(key)} for key in keys]}


def digest(subject: str) -> str:
    """Return the digest by which workers identify a subject."""
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


def closed(world: World, id: str) -> list[dict[str, Any]]:
    """Return the log lines of this stream's subscribers, none until all are there."""
    lines = [line for line in world.gateway.log() if line["event"] == "stream closed" and line["path"] == f"/streams/{id[:8]}"]
    return lines if len(lines) >= CONNECTIONS else []


async def test_subscriber_through_another_worker_differs_in_the_log_from_one_whose_upstream_was_lost(pair: tuple[World, Path]) -> None:
    world, _ = pair
    ids: dict[str, str] = {}
    for path, field in (("/kept/long", bearer(hs_token())), ("/keyed/long", ("X-API-Key", NEW_KEY))):
        async with Downstream(world.port) as downstream:
            ids[path] = (await world.open(downstream, path, [field], "POST", BODY)).head.value("Stream-Id") or ""
    async with connected(world.port, 2 * CONNECTIONS) as downstreams:
        expiring = [(ids["/kept/long"], bearer(hs_token(exp=int(time.time()) + 5)))] * CONNECTIONS
        revoked = [(ids["/keyed/long"], ("X-API-Key", OLD_KEY))] * CONNECTIONS
        answers = []
        for downstream, (id, field) in zip(downstreams, expiring + revoked, strict=True):
            answers.append(await world.open(downstream, f"/streams/{id}", [field]))
            assert await answers[-1].receive_until(lambda body: b"one" in body)
            assert answers[-1].head.value("Gateway-Caller") is None
        config = world.gateway.output.with_name("routes.toml")
        config.write_text(config.read_text().replace(digest_of(OLD_KEY), digest_of(OTHER_KEY)))
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            assert (await http.post(f"{world.gateway.status_url}/reload")).json()["changed"] == ["/keyed"]
        for answer in answers:
            await answer.to_end()
            assert answer.end is End.CUT_SHORT
    for path, field in (("/kept/long", bearer(hs_token())), ("/keyed/long", ("X-API-Key", NEW_KEY))):
        assert (await world.ask(f"/streams/{ids[path]}", field, method="DELETE")).status == 204
    for id, told in ((ids["/kept/long"], ("/kept", "token-expired")), (ids["/keyed/long"], ("/keyed", "revoked"))):
        mine = await asyncio.to_thread(wait_until, lambda id=id: closed(world, id), "a line for each in the log")  # type: ignore[misc]
        assert [(line["route"], line["verdict"]) for line in mine] == [told] * CONNECTIONS
        assert {line["worker"] for line in mine} == {0, 1}


async def test_other_users_of_the_machine_cannot_open_the_sockets_between_workers(pair: tuple[World, Path]) -> None:
    _, sockets = pair
    found = list(sockets.rglob("*.peer"))
    assert len(found) == 2
    for socket in found:
        assert socket.parent.stat().st_mode & 0o077 == 0
