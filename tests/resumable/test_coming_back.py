"""A client whose connection was cut resumes and gets the rest."""

import asyncio

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Pause, chunk
from tests.resumable.answers import END, HEAD, event, events, last_id, sent, stamped, stream_of, unstamped
from tests.resumable.conftest import BODY, Play

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_answer_has_its_stream_id_and_each_event_its_number(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 3) + END)
    async with play.ask("/ask?", scene) as answer:
        body = await answer.to_end()
    assert scene.requests[0].target == "/ask?", "byte for byte"
    stream = stream_of(answer)
    assert answer.end is End.COMPLETE
    assert answer.head.value("Location") == f"/streams/{stream}"
    assert len(stream) == 32
    assert body == b"".join(stamped(stream, number, event(number)) for number in (1, 2, 3))


async def test_each_event_is_passed_on_before_the_next_one_exists(play: Play) -> None:
    pauses = [Pause(), Pause()]
    scene = play.stage.scene(HEAD + sent(1, 1), pauses[0], sent(2, 2), pauses[1], sent(3, 3) + END)
    async with play.ask("/ask", scene) as answer:
        for number, pause in enumerate(pauses, 1):
            got = await answer.receive_until(lambda body, last=number: unstamped(body).endswith(event(last)))  # type: ignore[misc]
            assert unstamped(got) == events(1, number)
            pause.go()
        assert unstamped(await answer.to_end()) == events(1, 3)


@pytest.mark.parametrize("way", ["stream", "query", "same-request"])
async def test_client_that_was_cut_gets_exactly_the_rest_with_one_upstream_request(play: Play, way: str) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 3), pause, sent(4, 6) + END)
    async with play.ask("/ask", scene) as answer:
        first = await answer.receive_until(lambda body: unstamped(body).endswith(event(3)))
        answer.downstream.reset()
    seen = [("Last-Event-ID", last_id(first))]
    again = {
        "stream": play.ask(f"/streams/{stream_of(answer)}", method="GET", headers=seen, body=b""),
        "query": play.ask(f"/streams/{stream_of(answer)}?last_event_id={last_id(first)}", method="GET", body=b""),
        "same-request": play.ask("/ask", scene, headers=seen),
    }[way]
    async with again as rest:
        pause.go()
        assert unstamped(first + await rest.to_end()) == events(1, 6)
    assert rest.end is End.COMPLETE
    assert stream_of(rest) == stream_of(answer)
    assert len(scene.requests) == 1


async def test_upstream_runs_to_its_end_without_a_client(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 1), pause, sent(2, 100) + END)
    async with play.ask("/ask", scene) as answer:
        await answer.receive(1)
        answer.downstream.reset()
    pause.go()
    state = await play.reaches(stream_of(answer), "complete")
    assert (state["stream-blocks"], state["stream-viewers"]) == ("100", "0")
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", body=b"") as whole:
        assert unstamped(await whole.to_end()) == events(1, 100)


async def test_several_clients_may_follow_one_stream(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 2), pause, sent(3, 4) + END)
    async with play.ask("/ask", scene) as first:
        await first.receive_until(lambda body: unstamped(body).endswith(event(2)))
        path = f"/streams/{stream_of(first)}"
        async with play.ask(path, method="GET", body=b"") as second, play.ask(path, method="GET", body=b"") as third:
            await play.waits(stream_of(first), lambda state: state["stream-viewers"] == "3")
            pause.go()
            bodies = await asyncio.gather(first.to_end(), second.to_end(), third.to_end())
    assert [unstamped(body) for body in bodies] == [events(1, 4)] * 3


async def test_same_idempotency_key_joins_the_running_stream(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 2), pause, sent(3, 4) + END)
    key = [("Idempotency-Key", "one")]
    async with play.ask("/ask", scene, headers=key) as first, play.ask("/ask", scene, headers=key) as second:
        pause.go()
        bodies = await asyncio.gather(first.to_end(), second.to_end())
    assert [unstamped(body) for body in bodies] == [events(1, 4)] * 2
    async with play.ask("/ask", scene, headers=key) as retained:
        assert unstamped(await retained.to_end()) == events(1, 4)
    assert len(scene.requests) == 1


async def test_same_key_waits_for_an_answer_that_has_not_begun(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(pause, HEAD + sent(1, 2) + END)
    key = [("Idempotency-Key", "two")]

    async def body_of() -> bytes:
        async with play.ask("/ask", scene, headers=key) as answer:
            return unstamped(await answer.to_end())

    both = asyncio.gather(body_of(), body_of())
    await scene.asked()
    pause.go()
    assert await both == [events(1, 2)] * 2
    assert len(scene.requests) == 1


async def test_same_key_with_another_body_is_refused(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1) + END)
    key = [("Idempotency-Key", "three")]
    async with play.ask("/ask", scene, headers=key) as first:
        await first.to_end()
    async with play.ask("/ask", scene, headers=key, body=BODY + b" ") as second:
        assert second.head.status == 422
        assert b"another body" in await second.to_end()
    assert len(scene.requests) == 1


async def test_key_belongs_to_its_client(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1) + END)
    for user in ("Bearer a", "Bearer b"):
        async with play.ask("/ask", scene, headers=[("Idempotency-Key", "four"), ("Authorization", user)]) as answer:
            await answer.to_end()
    assert len(scene.requests) == 2


async def test_ids_of_the_upstream_stay_and_are_known(play: Play) -> None:
    blocks = [b"id: a\ndata: 1\n\n", b"data: 2\n\n", b"retry: 9\n\n", b"id: b\ndata: 3\n\n"]
    scene = play.stage.scene(HEAD + b"".join(map(chunk, blocks)) + END)
    async with play.ask("/ask", scene) as answer:
        body = await answer.to_end()
    stream = stream_of(answer)
    kept = [blocks[0], stamped(stream, 2, blocks[1]), *blocks[2:]]
    assert body == b"".join(kept)
    for seen, missing in (("a", 1), (f"{stream}-2", 2), ("b", 4)):
        async with play.ask(f"/streams/{stream}", method="GET", headers=[("Last-Event-ID", seen)], body=b"") as rest:
            assert await rest.to_end() == b"".join(kept[missing:]), seen


async def test_comments_and_further_blank_lines_are_no_blocks_of_their_own(play: Play) -> None:
    wire = [b"data: 1\r\n\r", b"\n", b": waits\r\n\r\n", b"\n\n: still\n\n", b"\ndata: 2\n\n", b"\n\n", b": that was all\n\n"]
    scene = play.stage.scene(HEAD + b"".join(map(chunk, wire)) + END)
    async with play.ask("/ask", scene) as answer:
        body = await answer.to_end()
    stamps = [b"id: %b-%d\n" % (stream_of(answer).encode(), number) for number in (1, 2)]
    assert body.replace(b"\n\r\n:", b"\n\r:") == b"data: 1\r\n%b\r: waits\n: still\ndata: 2\n%b\n" % tuple(stamps)


async def test_event_source_that_has_every_event_gets_204(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/ask", scene) as answer:
        body = await answer.to_end()
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", headers=[("Last-Event-ID", last_id(body))], body=b"") as rest:
        assert rest.head.status == 204
    async with play.ask("/ask", scene, headers=[("Last-Event-ID", last_id(body))]) as rest:  # a fetch expects an event stream
        assert (rest.head.status, rest.head.value("Content-Type"), stream_of(rest)) == (200, "text/event-stream", stream_of(answer))
        assert (await rest.to_end(), rest.end) == (b"retry: 1000000000\n", End.COMPLETE)
    assert len(scene.requests) == 1


async def test_event_source_that_has_every_event_of_a_get_gets_204(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + chunk(b"retry: 10\n\n") + END)
    async with play.ask("/get", scene, method="GET", body=b"") as answer:
        body = await answer.to_end()
    for seen, status in (("1", 200), ("2", 204)):
        headers = [("Last-Event-ID", f"{stream_of(answer)}-{seen}")]
        async with play.ask("/get", scene, method="GET", headers=headers, body=b"") as rest:
            assert rest.head.status == status
    assert last_id(body) == f"{stream_of(answer)}-2"
    assert len(scene.requests) == 1


async def test_block_without_data_after_the_last_event_is_not_resumed(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1) + chunk(b"retry: 10\n\n") + END)
    async with play.ask("/ask", scene) as answer:
        body = await answer.to_end()
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", headers=[("Last-Event-ID", last_id(body))], body=b"") as rest:
        assert rest.head.status == 204


async def test_ids_of_another_gateway_behind_this_one_are_known(play: Play) -> None:
    theirs = "f" * 32
    scene = play.stage.scene(
        HEAD + chunk(b"data: 1\nid: %s-1\n\n" % theirs.encode()) + chunk(b"data: 2\nid: %s-2\n\n" % theirs.encode()) + END
    )
    async with play.ask("/ask", scene) as answer:
        await answer.to_end()
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", headers=[("Last-Event-ID", f"{theirs}-1")], body=b"") as rest:
        assert await rest.to_end() == b"data: 2\nid: %s-2\n\n" % theirs.encode()


async def test_heartbeats_come_between_the_blocks(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 1), pause, sent(2, 2) + END)
    async with play.ask("/beat", scene) as answer:
        got = await answer.receive_until(lambda body: body.endswith(b"\n\n:\n"))
        assert unstamped(got.removesuffix(b":\n")) == event(1)
        pause.go()
        assert unstamped((await answer.to_end()).replace(b"\n:\n", b"\n")) == events(1, 2)


async def test_get_is_resumable_where_the_route_lists_it(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/get", scene, method="GET", body=b"") as answer:
        body = await answer.to_end()
    async with play.ask("/get", scene, method="GET", headers=[("Last-Event-ID", f"{stream_of(answer)}-1")], body=b"") as rest:
        assert unstamped(await rest.to_end()) == event(2)
    assert unstamped(body) == events(1, 2)
    assert len(scene.requests) == 1
