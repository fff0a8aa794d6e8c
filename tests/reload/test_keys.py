"""Test changes of API keys: each request is authorized by the current keys, and a revoked key ends the streams that it opened."""

from pathlib import Path

from gateway.policy.secrets import digest_of
from tests.auth.signing import bearer, hs_token
from tests.kit.downstream import Downstream, End
from tests.kit.reloading import reloading, resumable, route, shared
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Pause, ScriptedUpstream, Silence, chunk
from tests.resumable.answers import event, events, sent, stream_of, unstamped
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic, Upstream

OLD, NEW, OTHER = "the-old-key-of-the-shop-1", "the-new-key-of-the-shop-2", "the-key-of-a-bakery-3"
SECRET, NEXT_SECRET = "s" * 32, "n" * 32


def guarded(table: str, **keys: str) -> str:
    """Return a route that accepts these keys, each given by its holder's name and a number."""
    tables = [f"[[routes.auth.keys]]\nname = {name.rpartition('_')[0]!r}\nsha256 = {digest_of(key)!r}\n" for name, key in keys.items()]
    return "\n".join([table, "[routes.auth]", "kind = 'api-keys'", *tables])


def with_key(key: str) -> list[tuple[str, str]]:
    return [("X-API-Key", key)]


async def test_revoked_key_ends_only_its_streams_after_a_complete_block(tmp_path: Path) -> None:
    script = [EVENT_STREAM_HEAD, sent(1, 1), chunk(b"data: unfinish"), Silence()]
    async with ScriptedUpstream(script) as upstream:
        direct = route("/", upstream.url)
        async with (
            reloading(tmp_path, guarded(direct, shop_1=OLD, shop_2=NEW, other_1=OTHER)) as gateway,
            gateway.ask("/a", with_key(OLD)) as old,
            gateway.ask("/a", with_key(NEW)) as new,
            gateway.ask("/a", with_key(OTHER)) as other,
        ):
            for answer in (old, new, other):
                assert await answer.receive(len(event(1))) == event(1)
            assert await gateway.reload(guarded(direct, shop_2=NEW, other_1=OTHER)) == {"changed": ["/"]}
            assert await old.to_end() == event(1)
            assert old.end is End.CUT_SHORT
            assert [await gateway.status("/a", with_key(key)) for key in (OLD, NEW, OTHER)] == [401, 200, 200]
            assert (new.end, other.end) == (None, None)
            assert 'gateway_streams_ended_total{route="/",verdict="revoked"} 1.0' in await gateway.metrics()


async def test_changed_key_file_revokes_the_old_key(tmp_path: Path) -> None:
    file = tmp_path / "shop.key"
    file.write_text(OLD)
    async with ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 1), Silence()]) as upstream:
        table = route("/", upstream.url) + f"[routes.auth]\nkind = 'api-keys'\n[[routes.auth.keys]]\nname = 'shop'\nkey_file = '{file}'\n"
        async with reloading(tmp_path, table) as gateway, gateway.ask("/a", with_key(OLD)) as old:
            await old.receive(len(event(1)))
            assert await gateway.reload(table) == {}
            file.write_text(NEW)
            assert await gateway.status("/a", with_key(NEW)) == 401, "it is read again at the reload, and not before"
            assert await gateway.reload(table) == {"changed": ["/"]}
            assert [await gateway.status("/a", with_key(key)) for key in (OLD, NEW)] == [401, 200]
            assert await old.to_end() == event(1)
            file.write_text("short")
            answer = await gateway.post()
            assert answer.status_code == 422
            assert "short" not in answer.text
            assert await gateway.status("/a", with_key(NEW)) == 200


async def test_stream_ends_when_its_key_loses_the_grant(tmp_path: Path) -> None:
    async with ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 1), Silence()]) as upstream:
        table = guarded(route("/", upstream.url), shop_1=OLD)
        grants = "[routes.auth.keys.grants]\nread = ['/a']\n"
        async with (
            reloading(tmp_path, table) as gateway,
            gateway.ask("/a", with_key(OLD)) as granted,
            gateway.ask("/b", with_key(OLD)) as refused,
        ):
            await granted.receive(len(event(1)))
            await refused.receive(len(event(1)))
            await gateway.reload(table + grants)
            await refused.to_end()
            assert [await gateway.status(path, with_key(OLD)) for path in ("/a", "/b")] == [200, 403]
            assert granted.end is None


async def test_stream_continues_when_its_route_is_removed_or_stops_authenticating(tmp_path: Path) -> None:
    pauses = [Pause(), Pause()]
    scripts = [[EVENT_STREAM_HEAD, sent(1, 1), pause, sent(2, 2), LAST_CHUNK] for pause in pauses]
    async with ScriptedUpstream(*scripts) as upstream:
        freed, gone = route("/freed", upstream.url), route("/gone", upstream.url)
        async with (
            reloading(tmp_path, guarded(freed, shop_1=OLD), guarded(gone, shop_1=OLD)) as gateway,
            gateway.ask("/freed", with_key(OLD)) as first,
            gateway.ask("/gone", with_key(OLD)) as second,
        ):
            for answer in (first, second):
                await answer.receive(len(event(1)))
            await gateway.reload(freed)
            for pause, answer in zip(pauses, (first, second), strict=True):
                pause.go()
                assert await answer.to_end() == events(1, 2)


async def test_stream_whose_key_is_revoked_before_the_answer_ends_at_the_answer(tmp_path: Path) -> None:
    late = Pause()
    async with ScriptedUpstream([late, EVENT_STREAM_HEAD, sent(1, 1), Silence()]) as upstream:
        direct = route("/", upstream.url)
        async with reloading(tmp_path, guarded(direct, shop_1=OLD)) as gateway, Downstream(gateway.port) as downstream:
            await downstream.ask("/a", headers=with_key(OLD))
            await late.reached.wait()
            await gateway.reload(guarded(direct, shop_1=NEW))
            late.go()
            answer = await downstream.answer()
            assert await answer.to_end() == event(1)
            assert answer.end is End.CUT_SHORT


async def test_shared_stream_loses_only_the_holders_of_revoked_keys(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        topic = upstream.add(Topic("/topic"))
        table = shared("/", upstream.url)
        async with (
            reloading(tmp_path, guarded(table, shop_1=OLD, other_1=OTHER)) as gateway,
            Subscriber(gateway.port, "/topic", headers=with_key(OLD)) as old,
            Subscriber(gateway.port, "/topic", headers=with_key(OTHER)) as other,
            Subscriber(gateway.port, "/topic", headers=with_key(NEW), last_event_id="1") as new,
        ):
            await old.join()
            await other.join()
            topic.publish(2)
            await old.until_number(2)
            await gateway.reload(guarded(table, shop_1=NEW, other_1=OTHER))
            await old.until_end()
            await new.join()
            topic.publish()
            assert (await new.until_number(3)).numbers == [2, 3]
            assert (await other.until_number(3)).numbers == [1, 2, 3]
        assert len(topic.requests) == 1


async def test_client_that_resumes_a_kept_stream_is_authorized_by_the_current_keys(tmp_path: Path) -> None:
    async with ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 2), LAST_CHUNK]) as upstream:
        table = resumable("/ask", upstream.url)
        async with reloading(tmp_path, guarded(table, shop_1=OLD)) as gateway:
            async with gateway.ask("/ask", with_key(OLD), "POST", b"hello") as answer:
                target = f"/streams/{stream_of(answer)}"
                assert unstamped(await answer.to_end()) == events(1, 2)
            await gateway.reload(guarded(table, shop_1=NEW, other_1=OTHER))
            assert [await gateway.status(target, with_key(key)) for key in (OLD, OTHER)] == [401, 403]
            async with gateway.ask(target, with_key(NEW)) as back:
                assert unstamped(await back.to_end()) == events(1, 2), "who has another key of the same holder is the same"
            await gateway.reload(route("/other", upstream.url))
            assert [await gateway.status(target, with_key(key)) for key in (OLD, NEW)] == [403, 403]


async def test_stream_opened_with_a_token_continues_when_the_secret_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    pause = Pause()
    async with ScriptedUpstream([EVENT_STREAM_HEAD, sent(1, 1), pause, sent(2, 2), LAST_CHUNK]) as upstream:
        table = route("/", upstream.url) + f"[routes.auth]\nkind = 'jwt'\nsecret_file = '{file}'\ngrants_claim = ''\n"
        async with reloading(tmp_path, table) as gateway:
            token = bearer(hs_token(secret=SECRET))
            async with gateway.ask("/a", [token]) as answer:
                await answer.receive(len(event(1)))
                file.write_text(NEXT_SECRET)
                assert await gateway.reload(table) == {"changed": ["/"]}
                assert await gateway.status("/a", [token]) == 401
                pause.go()
                assert await answer.to_end() == events(1, 2)
