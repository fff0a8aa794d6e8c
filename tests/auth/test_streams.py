"""Test authenticated streams: shared by all authorized clients, kept for their owner, and ended when the token expires."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from tests.auth.conftest import World
from tests.auth.signing import bearer, hs_token
from tests.kit.downstream import Downstream, End, Fields
from tests.resumable.answers import stream_of, unstamped

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = b'{"message": "hello"}'
WHOLE = b"id: 1\ndata: one\n\nid: 2\ndata: two\n\n"
ACCEPT = ("Accept", "text/event-stream")


@contextlib.asynccontextmanager
async def connected(world: World) -> AsyncIterator[Downstream]:
    async with Downstream(world.port) as downstream:
        yield downstream


def soon(seconds: int = 5) -> int:
    """Return an expiry time `seconds` ahead at most and a second less at least, so that a busy machine opens a stream before."""
    return int(time.time()) + seconds


async def test_streams_of_all_modes_end_after_a_complete_block_when_their_token_expires(world: World) -> None:
    await asyncio.gather(*(expires_in_time(world, route) for route in ("/token", "/shared", "/kept")))


async def expires_in_time(world: World, route: str) -> None:
    expires, method = soon(), "POST" if route == "/kept" else "GET"
    async with connected(world) as downstream:
        fields = [ACCEPT, bearer(hs_token(exp=expires))]
        answer = await world.open(downstream, f"{route}/stream-ends", fields, method, BODY if method == "POST" else b"")
        assert answer.head.status == 200
        assert unstamped(await answer.receive_until(lambda body: b"data: two" in body)) == WHOLE
        assert time.time() < expires
        received = await answer.to_end()
    assert time.time() >= expires
    assert answer.end is End.CUT_SHORT  # an aborted connection: the stream must not look complete
    assert unstamped(received) == WHOLE
    assert await asyncio.to_thread(ended, world, route) == 1


def ended(world: World, route: str) -> float:
    return world.gateway.metric("gateway_streams_ended_total", route=route, verdict="token-expired")


async def test_stream_whose_upstream_answers_after_the_expiry_ends_too(world: World) -> None:
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/token/late/stream", [bearer(hs_token(exp=soon(1)))])
        if answer.head.status == 200:
            await answer.to_end()
            assert answer.end is End.CUT_SHORT
        else:
            assert answer.head.status == 401  # it expired on the way


async def test_authorized_clients_share_one_upstream_request(world: World) -> None:
    async with contextlib.AsyncExitStack() as stack:
        answers = []
        for number, (query, fields) in enumerate(three_ways()):
            downstream = await stack.enter_async_context(Downstream(world.port))
            answers.append(await world.open(downstream, f"/shared/stream-of-all{query}", [ACCEPT, *fields]))
            assert answers[number].head.status == 200
        assert len(world.asked("/shared/stream-of-all")) == 1
        (asked,) = world.asked("/shared/stream-of-all")
        assert asked.target == "/shared/stream-of-all?a=b"
        assert (asked.header("Authorization"), asked.header("Cookie")) == (None, None)
    refused = await world.ask("/shared/stream-of-all?a=b", ACCEPT)
    assert refused.status == 401


def three_ways() -> list[tuple[str, Fields]]:
    return [
        ("?a=b", [bearer(hs_token(sub="alice"))]),
        (f"?a=b&access_token={hs_token(sub='bob')}", []),
        ("?a=b", [("Cookie", f"session={hs_token(sub='carol')}"), ("Sec-Fetch-Site", "same-origin")]),
    ]


async def test_owner_resumes_a_kept_stream_with_a_newer_token(world: World) -> None:
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/kept/short-own", [bearer(hs_token(sub="alice", jti="1"))], "POST", BODY)
        body = await answer.to_end()
    stream = stream_of(answer)
    newer = bearer(hs_token(sub="alice", jti="2", exp=int(time.time()) + 300))
    assert (await world.ask(f"/streams/{stream}", newer)).body == body
    assert (await world.ask(f"/streams/{stream}?access_token={hs_token(sub='alice')}")).body == body
    cookie = [("Cookie", f"session={hs_token(sub='alice')}"), ("Sec-Fetch-Site", "same-origin")]
    assert (await world.ask(f"/streams/{stream}", *cookie)).body == body
    back = await world.ask("/kept/short-own", newer, ("Last-Event-ID", f"{stream}-1"), method="POST", body=BODY)
    assert unstamped(back.body) == b"id: 2\ndata: two\n\n"
    assert len(world.asked("/kept/short-own")) == 1


async def test_other_subjects_cannot_resume_a_kept_stream(world: World) -> None:
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/kept/short-other", [bearer(hs_token(sub="alice"))], "POST", BODY)
        await answer.to_end()
    path = f"/streams/{stream_of(answer)}"
    assert (await world.ask(path)).status == 401
    assert (await world.ask(path, bearer("x"))).status == 401
    assert (await world.ask(path, bearer(hs_token(sub="alice", exp=1)))).status == 401
    for method in ("GET", "HEAD", "DELETE"):
        assert (await world.ask(path, bearer(hs_token(sub="bob")), method=method)).status == 403
        assert (await world.ask(path, bearer(hs_token(sub="alice", iss="https://other")), method=method)).status == 403
        assert (await world.ask(path, bearer(hs_token(sub=None)), method=method)).status == 403
    taken = await world.ask("/kept/short-other", bearer(hs_token(sub="alice", events={})))
    assert taken.status == 403
    assert (await world.ask(path, bearer(hs_token(sub="alice", events={})))).status == 403  # the grant that opened it is gone
    assert (await world.ask(path, bearer(hs_token(sub="alice")))).status == 200


async def test_grant_that_opens_a_stream_also_resumes_it(world: World) -> None:
    grants = {"publish": ["/kept/short-granted"]}
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/kept/short-granted", [bearer(hs_token(events=grants))], "POST", BODY)
        body = await answer.to_end()
    assert (await world.ask(f"/streams/{stream_of(answer)}", bearer(hs_token(events=grants)))).body == body


async def test_cookie_from_a_page_of_another_origin_does_not_resume_a_kept_stream(world: World) -> None:
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/kept/short-page", [bearer(hs_token())], "POST", BODY)
        await answer.to_end()
    cookie = ("Cookie", f"session={hs_token()}")
    assert (await world.ask(f"/streams/{stream_of(answer)}", cookie, ("Sec-Fetch-Site", "cross-site"))).status == 403


async def test_stream_opened_with_a_token_without_subject_needs_the_same_token_to_resume(world: World) -> None:
    text = hs_token(sub=None, jti="1")
    async with connected(world) as downstream:
        answer = await world.open(downstream, "/kept/short-no-subject", [bearer(text)], "POST", BODY)
        body = await answer.to_end()
    path = f"/streams/{stream_of(answer)}"
    assert (await world.ask(path, bearer(text))).body == body
    assert (await world.ask(path, bearer(hs_token(sub=None, jti="2")))).status == 403


async def test_subscriber_is_cut_when_its_token_expires_and_the_kept_stream_continues(world: World) -> None:
    async with connected(world) as first, connected(world) as second:
        opened = await world.open(first, "/kept/stream-on", [bearer(hs_token())], "POST", BODY)
        await opened.receive_until(lambda body: b"data: two" in body)
        path = f"/streams/{stream_of(opened)}"
        followed = await world.open(second, path, [bearer(hs_token(exp=soon()))])
        assert unstamped(await followed.to_end()) == WHOLE
        assert followed.end is End.CUT_SHORT
        assert opened.end is None
        assert (await world.ask(path, bearer(hs_token()), method="HEAD")).head.value("Stream-State") == "running"


async def test_idempotency_keys_belong_to_the_subject(world: World) -> None:
    key = ("Idempotency-Key", "k1")
    alice = await world.ask("/kept/short-key", bearer(hs_token(sub="alice", jti="1")), key, method="POST", body=BODY)
    again = await world.ask("/kept/short-key", bearer(hs_token(sub="alice", jti="2")), key, method="POST", body=BODY)
    other = await world.ask("/kept/short-key", bearer(hs_token(sub="bob")), key, method="POST", body=BODY)
    assert alice.body == again.body
    assert alice.head.value("Stream-Id") == again.head.value("Stream-Id") != other.head.value("Stream-Id")
    assert len(world.asked("/kept/short-key")) == 2


async def test_kept_stream_stores_its_target_without_the_token(world: World) -> None:
    reply = await world.ask(f"/kept-get/short-target?a=b&access_token={hs_token(sub='alice', jti='1')}")
    assert reply.status == 200
    back = ("Last-Event-ID", f"{reply.head.value('Stream-Id')}-1")
    again = await world.ask(f"/kept-get/short-target?a=b&access_token={hs_token(sub='alice', jti='2')}", back)
    assert unstamped(again.body) == b"id: 2\ndata: two\n\n"
    assert [asked.target for asked in world.asked("/kept-get/short-target")] == ["/kept-get/short-target?a=b"]
