"""Many subscribers, one upstream request; and the clients that never share one."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.kit.downstream import Downstream
from tests.kit.waiting import GUARD_SECONDS
from tests.shared.conftest import Stage
from tests.shared.subscribing import Fields
from tests.shared.upstream import Topic

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALICE = ("Authorization", "Bearer alice")
BOB = ("Authorization", "Bearer bob")
BISCUIT = ("Cookie", "session=biscuit")
WAFER = ("Cookie", "session=wafer")


async def upstream_requests(stage: Stage, topic: Topic, *clients: tuple[str, Fields]) -> int:
    """Return the number of upstream requests for clients with these queries and header fields, all of which get the same events."""
    subscribers = [stage.subscriber(topic, query, headers=headers) for query, headers in clients]
    try:
        for subscriber in subscribers:
            await subscriber.join()
        count = len(topic.requests)
        await topic.until(lambda: topic.open == count)
        blocks = topic.publish(3)
        for subscriber in subscribers:
            assert (await subscriber.until_number(3)).events == blocks
        assert len(topic.requests) == count
        return count
    finally:
        for subscriber in subscribers:
            subscriber.leave()


async def test_fifty_subscribers_share_one_upstream_request(stage: Stage) -> None:
    assert await upstream_requests(stage, stage.topic(), *[("", ())] * 50) == 1


async def test_simultaneous_subscribers_share_one_upstream_request(stage: Stage) -> None:
    """The upstream has not answered the first when the others come."""
    topic = stage.topic()
    topic.speaking.clear()
    subscribers = [stage.subscriber(topic) for _ in range(20)]
    joining = asyncio.gather(*(subscriber.join() for subscriber in subscribers))
    await topic.until(lambda: len(topic.requests) == 1)
    topic.speaking.set()
    await joining
    blocks = topic.publish(2)
    for subscriber in subscribers:
        assert (await subscriber.until_number(2)).events == blocks
        subscriber.leave()
    assert len(topic.requests) == 1


async def test_path_and_query_distinguish_streams(stage: Stage) -> None:
    topic, other, marked = stage.topic(), stage.topic(), stage.topic()
    assert await upstream_requests(stage, topic, ("?a=1", ()), ("?a=2", ()), ("?a=1", ())) == 2
    assert [asked.target for asked in topic.requests] == [f"{topic.path}?a=1", f"{topic.path}?a=2"]
    assert await upstream_requests(stage, other, ("", ())) == 1
    assert await upstream_requests(stage, marked, ("", ()), ("?", ())) == 2
    assert [asked.target for asked in marked.requests] == [marked.path, f"{marked.path}?"]


NEVER_SHARED: dict[str, tuple[str, Sequence[Fields], int]] = {
    "two authorizations": ("/live", [[ALICE], [BOB]], 2),
    "two cookies": ("/live", [[BISCUIT], [WAFER]], 2),
    "the same authorization twice": ("/live", [[ALICE], [ALICE]], 2),
    "the same cookie twice": ("/live", [[BISCUIT], [BISCUIT]], 2),
    "with and without credentials": ("/live", [[ALICE], [], [BISCUIT], []], 3),
    "a cookie that the route does not name": ("/by-authorization", [[ALICE, BISCUIT], [ALICE, WAFER], [ALICE, WAFER]], 3),
    "another of two names": ("/by-both", [[ALICE, BISCUIT], [ALICE, WAFER], [BOB, WAFER]], 3),
    "two authorizations that the route names": ("/by-authorization", [[ALICE], [BOB], []], 3),
    "two tenants": ("/by-tenant", [[("X-Tenant", "red")], [("X-Tenant", "blue")], []], 3),
    "a tenant's two users": ("/by-tenant", [[("X-Tenant", "red"), ALICE], [("X-Tenant", "red"), BOB]], 2),
    "two origins": ("/live", [[("Origin", "https://a.example")], [("Origin", "https://b.example")]], 2),
}
SHARED: dict[str, tuple[str, Sequence[Fields], int]] = {
    "equal authorizations that the route names": ("/by-authorization", [[ALICE], [ALICE], [("authorization", ALICE[1])]], 1),
    "equal credentials where the route names both": ("/by-both", [[ALICE, BISCUIT], [BISCUIT, ALICE]], 1),
    "any credentials on a public route": ("/public", [[ALICE], [BOB], [BISCUIT], []], 1),
    "one tenant": ("/by-tenant", [[("X-Tenant", "red")], [("x-tenant", "red")]], 1),
    "fields without an identity": ("/live", [[("User-Agent", "a")], [("Accept-Language", "de"), ("X-Tenant", "red")]], 1),
    "origins that get the same answer": ("/everybody", [[("Origin", "https://a.example")], [("Origin", "https://b.example")], []], 1),
}


@pytest.mark.parametrize("case", NEVER_SHARED | SHARED)
async def test_identity_decides_which_clients_share(stage: Stage, case: str) -> None:
    route, clients, expected = (NEVER_SHARED | SHARED)[case]
    topic = stage.topic(route)
    assert await upstream_requests(stage, topic, *[("", headers) for headers in clients]) == expected


async def test_credentials_are_sent_upstream_only_for_their_client(stage: Stage) -> None:
    topic, public, by = stage.topic(), stage.topic("/public"), stage.topic("/by-authorization")
    await upstream_requests(stage, topic, ("", [ALICE]), ("", []), ("", [BISCUIT]))
    credentials = [(asked.header("Authorization"), asked.header("Cookie")) for asked in topic.requests]
    assert credentials == [(ALICE[1], None), (None, None), (None, BISCUIT[1])]
    await upstream_requests(stage, public, ("", [ALICE, BISCUIT]))
    assert {name.lower() for name, _ in public.requests[0].headers} & {"authorization", "cookie"} == set()
    await upstream_requests(stage, by, ("", [ALICE]), ("", [ALICE]))
    assert [asked.header("Authorization") for asked in by.requests] == [ALICE[1]]


async def test_upstream_request_is_like_that_of_an_event_source(stage: Stage) -> None:
    topic = stage.topic("/by-tenant")
    await upstream_requests(stage, topic, ("?q=%41&r", [("X-Tenant", "red"), ("X-Other", "x"), ("Accept-Encoding", "gzip, br")]))
    [asked] = topic.requests
    assert (asked.method, asked.target) == ("GET", f"{topic.path}?q=%41&r")
    assert asked.header("Accept") == "text/event-stream"
    assert asked.header("Accept-Encoding") == "identity"
    assert asked.header("X-Tenant") == "red"
    assert asked.header("Last-Event-ID") is None


@pytest.mark.parametrize("accept", ["application/json", "text/html, application/xml;q=0.9", "text/event-stream;q=0, */*"])
async def test_client_that_accepts_no_event_stream_negotiates_with_the_upstream(stage: Stage, accept: str) -> None:
    topic = stage.topic()
    async with stage.join(topic) as follower:
        topic.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Accept\r\nContent-Length: 2\r\n\r\n[]"
        for _ in range(2):
            async with stage.subscriber(topic, headers=[("Accept", accept)]) as other:
                assert await other.refused() == (200, b"[]")
                assert other.answer.head.value("Content-Type") == "application/json"
        blocks = topic.publish()
        assert (await follower.until_number(1)).events == blocks
    assert [asked.header("Accept") for asked in topic.requests] == ["text/event-stream", accept, accept]


@pytest.mark.parametrize("accept", ["*/*", "text/*;q=0.1", "application/json, text/event-stream;q=0.5"])
async def test_client_that_accepts_event_streams_among_others_shares(stage: Stage, accept: str) -> None:
    assert await upstream_requests(stage, stage.topic(), ("", ()), ("", [("Accept", accept)])) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_never_shared(stage: Stage, method: str) -> None:
    topic = stage.topic()
    async with stage.join(topic):
        topic.answer = b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
        async with Downstream(stage.gateway.port) as downstream:
            for body in (b"one", b"two"):
                await downstream.ask(topic.path, method, body=body)
                answer = await downstream.answer(method)
                assert (answer.head.status, await answer.to_end()) == (201, b"ok")
    assert [(asked.method, asked.body) for asked in topic.requests] == [("GET", b""), (method, b"one"), (method, b"two")]


async def test_upstream_request_ends_after_the_linger_time_without_a_subscriber(stage: Stage) -> None:
    topic = stage.topic("/brief")
    async with stage.join(topic) as first:
        topic.publish()
        await first.until_number(1)
        async with stage.join(topic):
            pass
        async with stage.join(topic):  # there was always a subscriber
            pass
        loop = asyncio.get_running_loop()
        left = loop.time()
    await topic.until(lambda: topic.open == 0)
    assert loop.time() - left > 0.2
    async with stage.join(topic):
        assert len(topic.requests) == 2


async def test_linger_time_restarts_with_each_last_subscriber(stage: Stage) -> None:
    topic = stage.topic("/brief")
    async with stage.join(topic) as first:
        topic.publish()
        await first.until_number(1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while loop.time() - begun < 0.6:  # twice the linger time
        async with stage.join(topic):
            pass
    assert len(topic.requests) == 1


async def test_stream_without_an_event_ends_with_its_last_subscriber(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.join(topic), stage.join(topic):
        pass
    await topic.until(lambda: topic.open == 0)  # the linger time of the route is 30 s, like the guard's


async def test_subscriber_that_joins_a_lingering_stream_gets_its_history(stage: Stage) -> None:
    topic = stage.topic("/history")
    async with stage.join(topic) as first:
        topic.publish(3)
        await first.until_number(3)
    topic.publish(2)  # without a subscriber
    async with stage.join(topic) as second:
        assert (await second.until_number(5)).events == topic.log.blocks
    assert len(topic.requests) == 1


async def test_subscriber_that_disconnects_before_the_answer_does_no_harm(stage: Stage) -> None:
    topic = stage.topic()
    topic.speaking.clear()
    async with stage.subscriber(topic) as hasty, stage.subscriber(topic) as patient:
        await hasty.ask()
        await topic.until(lambda: len(topic.requests) == 1)
        before = await stage.gateway.metric("gateway_open_requests")
        joining = asyncio.create_task(patient.join())
        async with asyncio.timeout(GUARD_SECONDS):
            while await stage.gateway.metric("gateway_open_requests") == before:  # a stream without a waiting subscriber ends
                await asyncio.sleep(0.01)
        hasty.leave(reset=True)
        topic.speaking.set()
        await joining
        blocks = topic.publish(2)
        assert (await patient.until_number(2)).events == blocks
    assert len(topic.requests) == 1


async def test_subscribers_that_disconnect_during_a_send_do_not_affect_the_others(stage: Stage) -> None:
    topic = stage.topic()
    async with stage.joined(topic, 5) as staying:
        for round in range(60):
            async with stage.joined(topic, 3) as leaving:
                topic.publish()
                for subscriber in leaving:
                    subscriber.leave(reset=round % 2 == 0)
                topic.publish()
        for subscriber in staying:
            assert (await subscriber.until_number(120)).events == topic.log.blocks
