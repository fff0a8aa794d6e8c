"""Test that open streams continue unchanged through a reload, and that new requests use the new routes."""

import asyncio
from pathlib import Path

from tests.kit.downstream import End
from tests.kit.reloading import Reloading, reloading, resumable, route, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Pause, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.resumable.answers import event, events, sent, stream_of, unstamped
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic, Upstream

TOLD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew"


async def test_direct_stream_of_a_changed_route_continues_and_new_requests_go_to_the_new_upstream(tmp_path: Path) -> None:
    pause = Pause()
    script = [EVENT_STREAM_HEAD, sent(1, 1), pause, sent(2, 2), LAST_CHUNK]
    async with ScriptedUpstream(script) as old, ScriptedUpstream([TOLD]) as new, reloading(tmp_path, route("/", old.url)) as gateway:
        async with gateway.ask("/") as answer:
            await answer.receive(len(event(1)))
            assert await gateway.reload(route("/", new.url)) == {"changed": ["/"]}
            async with gateway.ask("/") as later:
                assert await later.to_end() == b"new"
            pause.go()
            assert await answer.to_end() == events(1, 2)
            assert answer.end is End.COMPLETE
        assert len(old.requests) == 1


async def test_direct_stream_of_a_removed_route_continues_and_new_requests_get_404(tmp_path: Path) -> None:
    pause = Pause()
    async with (
        ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 1), pause, sent(2, 2), LAST_CHUNK]) as upstream,
        reloading(tmp_path, route("/old", upstream.url), route("/kept", upstream.url)) as gateway,
        gateway.ask("/old") as answer,
    ):
        await answer.receive(len(event(1)))
        assert await gateway.reload(route("/kept", upstream.url), route("/new", upstream.url)) == {"added": ["/new"], "removed": ["/old"]}
        async with gateway.ask("/old") as refused:
            assert refused.head.status == 404
            assert b"there are routes for /kept, /new" in await refused.to_end()
        pause.go()
        assert await answer.to_end() == events(1, 2)


async def test_shared_stream_of_an_unchanged_route_accepts_new_subscribers_with_its_history(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url)) as gateway:
        topic = upstream.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as first, Subscriber(gateway.port, "/topic", last_event_id="1") as second:
            await first.join()
            topic.publish(3)
            await first.until_number(3)
            assert await gateway.reload(route("/other", upstream.url), shared("/", upstream.url)) == {"added": ["/other"]}
            await second.join()
            topic.publish()
            assert (await second.until_number(4)).numbers == [2, 3, 4]
            assert (await first.until_number(4)).numbers == [1, 2, 3, 4]
        assert len(topic.requests) == 1


async def test_keys_that_only_restrict_requests_do_not_split_a_shared_stream(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url)) as gateway:
        topic = upstream.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as first, Subscriber(gateway.port, "/topic") as second:
            await first.join()
            assert await gateway.reload(shared("/", upstream.url, methods=["GET"])) == {"changed": ["/"]}
            await second.join()
            topic.publish()
            await asyncio.gather(first.until_number(1), second.until_number(1))
        assert len(topic.requests) == 1


async def test_shared_subscribers_stay_with_the_old_upstream_and_new_ones_get_the_new_upstream(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new, reloading(tmp_path, shared("/", old.url)) as gateway:
        before, after = old.add(Topic("/topic")), new.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as early, Subscriber(gateway.port, "/topic") as late:
            await early.join()
            await gateway.reload(shared("/", new.url))
            await late.join()
            before.publish(2)
            after.publish()
            assert (await early.until_number(2)).numbers == [1, 2]
            assert (await late.until_number(1)).numbers == [1]
            early.leave()
            await before.until(lambda: before.open == 0)
            after.publish()
            await late.until_number(2)
        assert (len(before.requests), len(after.requests)) == (1, 1)


async def test_restored_route_finds_its_stream_that_continued(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url)) as gateway:
        topic = upstream.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as first, Subscriber(gateway.port, "/topic") as second:
            await first.join()
            await gateway.reload(shared("/", upstream.url, initial="history"))
            await gateway.reload(shared("/", upstream.url))
            await second.join()
            topic.publish()
            await second.until_number(1)
        assert len(topic.requests) == 1


async def test_shared_stream_without_subscribers_ends_when_its_route_is_removed(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url, linger_seconds=3600)) as gateway:
        topic = upstream.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as subscriber:
            await subscriber.join()
            topic.publish()
            await subscriber.until_number(1)
        async with asyncio.timeout(GUARD_SECONDS):
            while gateway.gateway.metrics_text().count("gateway_open_requests 0.0") != 1:
                await asyncio.sleep(0.01)
        assert topic.open == 1, "it lingers"
        await gateway.reload(route("/other", upstream.url))
        await topic.until(lambda: topic.open == 0)


async def test_subscribers_of_a_lost_upstream_are_sent_to_the_new_route_instead_of_waiting_for_the_old_one(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new, reloading(tmp_path, shared("/", old.url)) as gateway:
        before, after = old.add(Topic("/topic")), new.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as subscriber:
            await subscriber.join()
            before.publish(2)
            after.publish(3)
            await subscriber.until_number(2)
            await gateway.reload(shared("/", new.url))
            before.kill()
            assert await subscriber.until_end() is End.CUT_SHORT
            await subscriber.join()
            assert (await subscriber.until_number(3)).numbers == [1, 2, 3], "nothing is missing, and nothing is there twice"


async def test_subscribers_that_wait_for_a_lost_upstream_are_sent_to_the_new_one_at_once(tmp_path: Path) -> None:
    async with Upstream() as old, Upstream() as new, reloading(tmp_path, shared("/", old.url)) as gateway:
        before, after = old.add(Topic("/topic", retry=60_000)), new.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as subscriber:
            await subscriber.join()
            before.publish()
            after.publish(2)
            await subscriber.until_number(1)
            await old.stop()
            [stream] = gateway.gateway.routing._shared.streams
            async with asyncio.timeout(GUARD_SECONDS):
                while stream.source.state != "connecting":  # its next attempt is a minute away
                    await asyncio.sleep(0.01)
            await gateway.reload(shared("/", new.url))
            assert await subscriber.until_end() is End.CUT_SHORT
            await subscriber.join()
            await subscriber.until_number(2)
            await old.start()


async def test_kept_stream_continues_and_is_found_by_its_id_after_its_route_changes(tmp_path: Path) -> None:
    pause = Pause()
    script = [EVENT_STREAM_HEAD, sent(1, 1), pause, sent(2, 3), LAST_CHUNK]
    async with ScriptedUpstream(script) as old, ScriptedUpstream([TOLD]) as new, reloading(tmp_path, resumable("/", old.url)) as gateway:
        async with gateway.ask("/ask", method="POST", body=b"hello") as answer:
            stream = stream_of(answer)
            await answer.receive(len(event(1)))
        await gateway.reload(resumable("/", new.url))
        pause.go()
        async with gateway.ask(f"/streams/{stream}") as back:
            assert unstamped(await back.to_end()) == events(1, 3)
        assert (len(old.requests), len(new.requests)) == (1, 0)


async def test_first_resumable_route_opens_the_store_and_its_streams_outlive_a_change_of_mode(tmp_path: Path) -> None:
    script = [EVENT_STREAM_HEAD, sent(1, 2), LAST_CHUNK]
    async with ScriptedUpstream(script) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway:
        assert not (tmp_path / "data").exists()
        await gateway.reload(resumable("/", upstream.url))
        async with gateway.ask("/ask", method="POST", body=b"hello") as answer:
            stream = stream_of(answer)
            assert unstamped(await answer.to_end()) == events(1, 2)
        await gateway.reload(route("/", upstream.url))
        async with gateway.ask(f"/streams/{stream}") as back:
            assert unstamped(await back.to_end()) == events(1, 2)
    assert [*(tmp_path / "data").iterdir()], "and it was closed in order"


async def test_heartbeats_of_a_new_route_are_on_time_whatever_the_old_intervals(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 1), Silence()]) as upstream,
        reloading(tmp_path, route("/", upstream.url, heartbeat_seconds=3600)) as gateway,
        gateway.ask("/") as slow,
    ):
        await slow.receive(len(event(1)))
        await gateway.reload(route("/", upstream.url, heartbeat_seconds=0.1))
        begun = asyncio.get_running_loop().time()
        async with gateway.ask("/") as quick:
            await quick.receive(len(event(1) + b":\n\n" * 5))
            assert asyncio.get_running_loop().time() - begun >= 0.4
        assert bytes(slow.body) == event(1)


async def ask_often(gateway: Reloading, count: int) -> None:
    for _ in range(count):
        assert await gateway.status("/") == 200


async def test_no_request_fails_during_repeated_reloads(tmp_path: Path) -> None:
    async with ScriptedUpstream([TOLD]) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway:
        asking = [asyncio.create_task(ask_often(gateway, 25)) for _ in range(2)]
        for number in range(10):
            await gateway.reload(route("/", upstream.url, connect_timeout_seconds=1 + number))
        await asyncio.gather(*asking)
        assert 'gateway_reloads_total{result="done"} 10.0' in await gateway.metrics()


async def test_block_split_by_a_reload_is_completed(tmp_path: Path) -> None:
    pause = Pause()
    script = [EVENT_STREAM_HEAD, chunk(b"data: be"), pause, chunk(b"gun\n\n"), LAST_CHUNK]
    async with ScriptedUpstream(script) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway, gateway.ask("/") as answer:
        await gateway.reload(route("/new", upstream.url, on_upstream_loss="error-event"))
        pause.go()
        assert await answer.to_end() == b"data: begun\n\n"
