"""A kept answer has a name: the requests that client libraries send by themselves find it, and only its opener's do."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.kit.downstream import End, Fields
from tests.kit.routed_gateway import running
from tests.kit.stage import Scene, Stage
from tests.kit.upstream import Disconnect, Pause, Silence, chunk
from tests.resumable.answers import END, HEAD, events, last_id, sent, stream_of, unstamped
from tests.resumable.conftest import Play, StartPlay, resumable

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALICE = ("Authorization", "Bearer alice")
BOB = ("Authorization", "Bearer bob")
CHAT = {"name": "body:/id", "path": "{name}/stream", "stop": "POST {name}/stop"}


def body(name: object, **more: object) -> bytes:
    return json.dumps({"id": name, **more}).encode()


def said(*documents: dict[str, Any]) -> bytes:
    """Return one event with JSON data for each document, as HTTP chunks."""
    return b"".join(chunk(b"data: %b\n\n" % json.dumps(document).encode()) for document in documents)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def named(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Play]:
    directory = tmp_path_factory.mktemp("named")
    async with Stage() as stage:
        routes = [
            resumable("/chat", stage.url, resume=CHAT),
            resumable("/strict", stage.url, resume=CHAT | {"when_missing": "not-found"}),
            resumable("/through", stage.url, resume=CHAT | {"when_missing": "pass", "stop_passes_on": True}),
            resumable("/once", stage.url, resume=CHAT | {"when_over": "no-content"}),
            resumable("/newest", stage.url, resume=CHAT | {"when_named_again": "stop"}),
            resumable("/plain", stage.url, resume=CHAT | {"ids": False}),
            resumable("/anybody", stage.url, anonymous_keys="anybody", resume=CHAT),
            resumable("/off", stage.url, anonymous_keys="off", resume=CHAT),
            resumable("/header", stage.url, resume={"name": "header:X-Chat", "path": "{name}"}),
            resumable("/query", stage.url, resume={"name": "query:chat", "path": "{name}"}),
            resumable("/ai", stage.url, resume={"preset": "ai-sdk"}),
            resumable("/v1", stage.url, resume={"preset": "openai-responses"}),
            resumable("/lg", stage.url, resume={"preset": "langgraph"}),
            resumable("/mcp", stage.url, methods=["POST"], resume={"preset": "mcp"}),
            resumable("/session", stage.url, resume={"preset": "mcp"}),
        ]
        async with running(routes, directory) as subject:
            yield Play(subject, stage)


async def fetched(play: Play, target: str, headers: Fields = (ALICE,), *, scene: Scene | None = None) -> tuple[int, bytes, End | None]:
    """GET a target, and return the status, the body without the gateway's IDs, and how it ended."""
    async with play.ask(target, scene, method="GET", headers=headers, body=b"") as answer:
        got = await answer.to_end()
        return answer.head.status, unstamped(got), answer.end


async def test_named_answer_is_replayed_and_followed_while_it_runs(named: Play) -> None:
    pause = Pause()
    scene = named.stage.scene(HEAD + sent(1, 3), pause, sent(4, 5) + END)
    async with named.ask("/chat", scene, headers=[ALICE], body=body("c1")) as first:
        await first.receive_until(lambda got: b"data: 3" in got)
        first.downstream.reset()
    async with named.ask("/chat/c1/stream?x=1", method="GET", headers=[ALICE], body=b"") as again:
        await again.receive_until(lambda got: b"data: 3" in got)
        pause.go()
        assert unstamped(await again.to_end()) == events(1, 5)
        assert again.end is End.COMPLETE
        assert again.head.value("Content-Type") == "text/event-stream"
    assert len(scene.requests) == 1
    assert await fetched(named, "/chat/c1/stream") == (200, events(1, 5), End.COMPLETE)


async def test_last_event_id_gets_the_rest_of_a_named_answer(named: Play) -> None:
    scene = named.stage.scene(HEAD + sent(1, 4) + END)
    async with named.ask("/chat", scene, headers=[ALICE], body=body("c2")) as first:
        got = await first.to_end()
    second = got.split(b"id: ")[2].partition(b"\n")[0].decode()
    assert await fetched(named, "/chat/c2/stream", [ALICE, ("Last-Event-ID", second)]) == (200, events(3, 4), End.COMPLETE)
    status, rest, _ = await fetched(named, "/chat/c2/stream", [ALICE, ("Last-Event-ID", last_id(got))])
    assert status in (200, 204)
    assert rest == b""


async def test_answer_can_be_asked_for_before_its_head(named: Play) -> None:
    pause = Pause()
    scene = named.stage.scene(pause, HEAD + sent(1, 2) + END)
    async with named.ask_without_answer("/chat", scene, headers=[ALICE], body=body("c3")):
        await scene.asked()
    async with named.asked("/chat/c3/stream", headers=[ALICE]) as downstream:
        pause.go()
        answer = await downstream.answer("GET")
        assert unstamped(await answer.to_end()) == events(1, 2)
    assert len(scene.requests) == 1


@pytest.mark.parametrize(
    ("route", "status"),
    [("/chat", 204), ("/strict", 404)],
)
async def test_names_that_are_missing_stopped_or_of_others_look_the_same(named: Play, route: str, status: int) -> None:
    scene = named.stage.scene(HEAD + sent(1, 1), Silence())
    async with named.ask(route, scene, headers=[ALICE], body=body("mine")) as answer:
        await answer.receive(1)
        seen = []
        for name in ("mine", "none", "x" * 5000, "a%2Fb", "%00", "%ff"):
            async with named.ask(f"{route}/{name}/stream", method="GET", headers=[BOB], body=b"") as refused:
                text = await refused.to_end()
                seen.append(
                    (
                        refused.head.status,
                        [field for field in refused.head.fields if field[0].lower() not in ("date", "x-request-id")],
                        len(text),
                    )
                )
            async with named.ask(f"{route}/{name}/stop", headers=[BOB], body=b"") as refused:
                seen.append((refused.head.status, None, 0))
        assert {each[0] for each in seen} == {status}
        assert [each for each in seen[::2] if each != seen[0]] == []
        assert (await named.state(stream_of(answer), [ALICE]))["stream-state"] == "running"
        async with named.ask(f"{route}/mine/stop", headers=[ALICE], body=b"") as stopped:
            assert stopped.head.status == 204
        await scene.left()
        await answer.to_end()
        assert answer.end is End.CUT_SHORT
    assert (await named.state(stream_of(answer), [ALICE]))["stream-state"] == "stopped"
    assert (await fetched(named, f"{route}/mine/stream"))[0] == status


async def test_missing_name_and_stop_pass_to_the_upstream(named: Play) -> None:
    scene = named.stage.scene(b"HTTP/1.1 418 Teapot\r\nContent-Length: 2\r\n\r\nno")
    assert await fetched(named, "/through/none/stream", scene=scene) == (418, b"no", End.COMPLETE)
    running_one = named.stage.scene(HEAD + sent(1, 1), Silence())
    async with named.ask("/through", running_one, headers=[ALICE], body=body("p1")) as answer:
        await answer.receive(1)
        async with named.ask("/through/p1/stop", scene, headers=[ALICE], body=b'{"save": true}') as stopped:
            assert stopped.head.status == 418
        await running_one.left()
    assert scene.requests[-1].body == b'{"save": true}'


async def test_request_without_an_answer_yet_can_be_stopped(named: Play) -> None:
    scene = named.stage.scene(Silence())
    async with named.asked("/chat", "POST", scene, headers=[ALICE], body=body("early")) as downstream:
        await scene.asked()
        async with named.ask("/chat/early/stop", headers=[ALICE], body=b"") as stopped:
            assert stopped.head.status == 204
        await scene.left()
        assert (await downstream.answer("POST")).head.status == 502
    assert (await fetched(named, "/chat/early/stream"))[0] == 204


async def test_newest_answer_of_a_name_counts(named: Play) -> None:
    older = named.stage.scene(HEAD + sent(1, 1), Silence())
    async with named.ask("/chat", older, headers=[ALICE], body=body("again", n=1)) as first:
        await first.receive(1)
        async with named.ask("/chat", named.stage.scene(HEAD + sent(7, 8) + END), headers=[ALICE], body=body("again", n=2)) as second:
            await second.to_end()
        assert await fetched(named, "/chat/again/stream") == (200, events(7, 8), End.COMPLETE)
        assert (await named.state(stream_of(first), [ALICE]))["stream-state"] == "running"


async def test_older_answer_is_stopped_where_the_route_says_so(named: Play) -> None:
    older = named.stage.scene(HEAD + sent(1, 1), Silence())
    async with named.ask("/newest", older, headers=[ALICE], body=body("again", n=1)) as first:
        await first.receive(1)
        async with named.ask("/newest", named.stage.scene(HEAD + sent(7, 8) + END), headers=[ALICE], body=body("again", n=2)) as second:
            await second.to_end()
        await older.left()
        await first.to_end()
        assert first.end is End.CUT_SHORT
    assert (await named.state(stream_of(first), [ALICE]))["stream-state"] == "stopped"


async def test_complete_answer_gets_204_where_the_route_says_so(named: Play) -> None:
    pause = Pause()
    scene = named.stage.scene(HEAD + sent(1, 1), pause, END)
    async with named.ask("/once", scene, headers=[ALICE], body=body("o1")) as answer:
        await answer.receive(1)
        async with named.ask("/once/o1/stream", method="GET", headers=[ALICE], body=b"") as again:
            await again.receive(1)
            pause.go()
            await again.to_end()
        await answer.to_end()
    assert (await fetched(named, "/once/o1/stream"))[:2] == (204, b"")


async def test_answer_that_was_cut_is_replayed_and_then_cut(named: Play) -> None:
    scene = named.stage.scene(HEAD + sent(1, 2), Disconnect())
    async with named.ask("/chat", scene, headers=[ALICE], body=body("cut")) as answer:
        await answer.to_end()
    assert await fetched(named, "/chat/cut/stream") == (200, events(1, 2), End.CUT_SHORT)


async def test_answer_keeps_its_bytes_without_ids(named: Play) -> None:
    sent_bytes = b": hello\n\ndata: 1\n\n:\r\n\r\nid: own\ndata: 2\n\n"
    scene = named.stage.scene(HEAD + chunk(sent_bytes) + END)
    async with named.ask("/plain", scene, headers=[ALICE], body=body("bytes")) as answer:
        assert await answer.to_end() == sent_bytes
    async with named.ask("/plain/bytes/stream", method="GET", headers=[ALICE], body=b"") as again:
        assert await again.to_end() == sent_bytes
    assert await fetched(named, "/plain/bytes/stream", [ALICE, ("Last-Event-ID", "own")]) == (200, b"", End.COMPLETE)


@pytest.mark.parametrize(("route", "found"), [("/chat", True), ("/anybody", True), ("/off", False)])
async def test_name_without_credentials_is_found_as_the_route_says(named: Play, route: str, found: bool) -> None:
    scene = named.stage.scene(HEAD + sent(1, 1) + END)
    async with named.ask(route, scene, body=body("anonymous")) as answer:
        await answer.to_end()
    status, got, _ = await fetched(named, f"{route}/anonymous/stream", ())
    assert (status, got) == ((200, events(1, 1)) if found else (204, b""))
    assert (await fetched(named, f"{route}/anonymous/stream"))[0] == 204, "a client with credentials is another one"


@pytest.mark.parametrize(("route", "headers", "target"), [("/header", [("X-Chat", "h1")], "/header"), ("/query", [], "/query?chat=h1")])
async def test_name_from_a_field_or_the_query(named: Play, route: str, headers: Fields, target: str) -> None:
    scene = named.stage.scene(HEAD + sent(1, 1) + END)
    async with named.ask(target, scene, headers=[ALICE, *headers]) as answer:
        await answer.to_end()
    assert await fetched(named, f"{route}/h1") == (200, events(1, 1), End.COMPLETE)


@pytest.mark.parametrize("unusable", [b"", b"[]", b'{"id": null}', b'{"id": "' + b"x" * 10_000 + b'"}', b"[" * 50_000, b"\xff"])
async def test_answer_without_a_usable_name_is_kept_all_the_same(named: Play, unusable: bytes) -> None:
    scene = named.stage.scene(HEAD + sent(1, 2) + END)
    async with named.ask("/chat", scene, headers=[ALICE], body=unusable) as answer:
        got = await answer.to_end()
    assert unstamped(got) == events(1, 2)
    assert await fetched(named, f"/streams/{stream_of(answer)}") == (200, events(1, 2), End.COMPLETE)


# The presets, without their libraries


@pytest.mark.parametrize(("start", "status"), [({"type": "start", "messageId": "m1"}, 200), ({"type": "start"}, 204)])
async def test_complete_message_is_replayed_only_with_its_id(named: Play, start: dict[str, Any], status: int) -> None:
    scene = named.stage.scene(HEAD + said(start, {"type": "finish"}) + END)
    name = f"m{status}"
    async with named.ask("/ai", scene, headers=[ALICE], body=body(name)) as answer:
        await answer.to_end()
    assert (await fetched(named, f"/ai/{name}/stream"))[0] == status


async def test_response_is_retrieved_from_a_sequence_number(named: Play) -> None:
    numbered = [{"type": "response.created", "sequence_number": 0, "response": {"id": "resp_1", "object": "response"}}]
    numbered += [{"type": "delta", "sequence_number": number} for number in range(1, 6)]
    pause = Pause()
    scene = named.stage.scene(HEAD + said(*numbered[:4]), pause, said(*numbered[4:]) + END)
    passed = named.stage.scene(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")
    async with named.ask("/v1/responses", scene, headers=[ALICE], body=b'{"stream": true}') as answer:
        await answer.receive_until(lambda got: b'"sequence_number": 3' in got)
        answer.downstream.reset()
    async with named.ask("/v1/responses/resp_1?stream=true&starting_after=1", method="GET", headers=[ALICE], body=b"") as rest:
        await rest.receive_until(lambda got: b'"sequence_number": 3' in got)
        pause.go()
        got = unstamped(await rest.to_end())
    assert [json.loads(line[6:])["sequence_number"] for line in got.decode().split("\n\n") if line] == [2, 3, 4, 5]
    whole = (await fetched(named, "/v1/responses/resp_1?stream=true"))[1]
    assert whole.count(b"data:") == 6
    assert await fetched(named, "/v1/responses/resp_1?stream=true&starting_after=5") == (200, b"", End.COMPLETE)
    assert (await fetched(named, "/v1/responses/resp_1", scene=passed))[0] == 418
    assert (await fetched(named, "/v1/responses/resp_2?stream=true", scene=passed))[0] == 418
    assert (await fetched(named, "/v1/responses/resp_1?stream=true", [BOB], scene=passed))[0] == 418


async def test_cancelled_response_is_answered_as_far_as_it_was_seen(named: Play) -> None:
    created = {
        "type": "response.created",
        "sequence_number": 0,
        "response": {"id": "resp_9", "object": "response", "status": "in_progress"},
    }
    item = {"type": "response.output_item.done", "sequence_number": 1, "output_index": 0, "item": {"id": "msg_1"}}
    scene = named.stage.scene(HEAD + said(created, item), Silence())
    async with named.ask("/v1/responses", scene, headers=[ALICE], body=b'{"stream": true}') as answer:
        await answer.receive_until(lambda got: b"msg_1" in got)
        async with named.ask("/v1/responses/resp_9/cancel", headers=[ALICE], body=b"") as cancelled:
            told = json.loads(await cancelled.to_end())
        await scene.left()
    assert told == {"id": "resp_9", "object": "response", "status": "cancelled", "output": [{"id": "msg_1"}]}


async def test_response_that_is_complete_is_not_cancelled(named: Play) -> None:
    response = {"id": "resp_8", "object": "response", "status": "completed", "output": [{"id": "msg_1"}]}
    scene = named.stage.scene(HEAD + said({"type": "response.completed", "sequence_number": 0, "response": response}) + END)
    async with named.ask("/v1/responses", scene, headers=[ALICE], body=b'{"stream": true}') as answer:
        await answer.to_end()
    async with named.ask("/v1/responses/resp_8/cancel", headers=[ALICE], body=b"") as cancelled:
        assert json.loads(await cancelled.to_end()) == response


async def test_run_has_a_location_below_any_base_path(named: Play) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Location: /threads/t1/runs/r1\r\n\r\n")
    scene = named.stage.scene(head + sent(1, 3) + END)
    passed = named.stage.scene(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")
    async with named.ask("/lg/threads/t1/runs/stream", scene, headers=[ALICE]) as answer:
        await answer.to_end()
        assert answer.head.value("Location") == "/threads/t1/runs/r1/stream"
    path = "/lg/threads/t1/runs/r1/stream"
    assert await fetched(named, path) == (200, events(1, 3), End.COMPLETE)
    assert await fetched(named, f"{path}?stream_mode=&cancel_on_disconnect=false") == (200, events(1, 3), End.COMPLETE)
    assert (await fetched(named, f"{path}?stream_mode=values", scene=passed))[0] == 418
    assert (await fetched(named, f"{path}?cancel_on_disconnect=true", scene=passed))[0] == 418


async def test_location_of_the_upstream_is_kept(named: Play) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\nLocation: /elsewhere\r\n\r\n")
    async with named.ask("/chat", named.stage.scene(head + sent(1, 1) + END), headers=[ALICE], body=body("l")) as answer:
        await answer.to_end()
        assert answer.head.value("Location") == "/elsewhere"


SESSION = ("Mcp-Session-Id", "s1")
PROTOCOL = ("MCP-Protocol-Version", "2025-11-25")


async def test_first_block_lets_a_silent_tool_be_resumed(named: Play) -> None:
    pause = Pause()
    scene = named.stage.scene(HEAD, pause, sent(1, 2) + END)
    async with named.ask("/mcp", scene, headers=[SESSION, PROTOCOL]) as answer:
        first = await answer.receive_until(lambda got: got.endswith(b"\n\n"))
        assert first == b"retry: 3000\ndata:\nid: %b-0\n\n" % stream_of(answer).encode()
        answer.downstream.reset()
    resumed = [SESSION, PROTOCOL, ("Last-Event-ID", last_id(first))]
    repeated = b"data:\nid: %b\n\n" % last_id(first).encode()
    async with named.ask("/mcp", method="GET", headers=resumed, body=b"") as again:
        assert await again.receive(len(repeated)) == repeated, "otherwise the client forgets the ID before the next event"
        pause.go()
        assert (await again.to_end()).startswith(repeated)
    async with named.ask("/mcp", method="GET", headers=[SESSION, ("Last-Event-ID", last_id(first))], body=b"") as older:
        assert unstamped(await older.to_end()) == events(1, 2)
    assert len(scene.requests) == 1


@pytest.mark.parametrize(
    ("headers", "first"),
    [
        ([SESSION], b"data: 1\n\n"),
        ([SESSION, ("MCP-Protocol-Version", "2025-06-18")], b"data: 1\n\n"),
        ([SESSION, PROTOCOL], b"id: own\ndata: 1\n\n"),
    ],
    ids=["initialize", "older", "own-id"],
)
async def test_first_block_is_left_out(named: Play, headers: Fields, first: bytes) -> None:
    scene = named.stage.scene(HEAD + chunk(first) + END)
    async with named.ask("/mcp", scene, headers=headers) as answer:
        assert unstamped(await answer.to_end()) == first


async def test_get_of_a_session_passes_to_the_upstream(named: Play) -> None:
    scene = named.stage.scene(HEAD + sent(1, 1), Silence())
    async with named.ask("/session", scene, method="GET", headers=[SESSION, PROTOCOL], body=b"") as own:
        await own.receive(1)
        own.downstream.reset()
    await scene.left()


async def test_other_methods_are_refused_though_their_requests_may_resume(named: Play) -> None:
    async with named.ask("/mcp", method="GET", headers=[SESSION, PROTOCOL], body=b"") as refused:
        assert (refused.head.status, refused.head.value("Allow")) == (405, "POST")


# IDs on the route's own path, in every resumable route


async def test_get_with_an_id_of_the_gateway_never_reaches_the_upstream(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 3) + END)
    async with play.ask("/ask", scene, headers=[ALICE]) as answer:
        got = await answer.to_end()
    second = ("Last-Event-ID", got.split(b"id: ")[2].partition(b"\n")[0].decode())
    assert await fetched(play, "/ask", [ALICE, second]) == (200, events(3, 3), End.COMPLETE)
    assert (await fetched(play, "/ask", [BOB, second]))[0] == 403
    assert await fetched(play, "/beat", [ALICE, second]) == (200, events(3, 3), End.COMPLETE)
    assert (await fetched(play, "/beat", [BOB, second]))[0] == 403
    assert (await fetched(play, "/ask", [ALICE, ("Last-Event-ID", last_id(got))]))[0] == 204
    assert len(scene.requests) == 1


async def test_get_with_an_expired_id_gets_410(play: Play) -> None:
    async with play.ask("/brief", play.stage.scene(HEAD + sent(1, 1) + END), headers=[ALICE]) as answer:
        got = await answer.to_end()
    await play.waits(stream_of(answer), lambda state: state["status"] == "410", [ALICE])
    assert (await fetched(play, "/brief", [ALICE, ("Last-Event-ID", last_id(got))]))[0] == 410


async def test_get_with_an_id_that_was_never_given_here_passes(play: Play) -> None:
    scene = play.stage.scene(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")
    for unknown in ("17", f"{'0' * 32}-1"):
        assert (await fetched(play, "/ask", [ALICE, ("Last-Event-ID", unknown)], scene=scene))[0] == 418
    assert [asked.header("Last-Event-ID") for asked in scene.requests] == ["17", f"{'0' * 32}-1"]


async def test_get_with_an_id_of_the_upstream_joins_its_running_answer(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + chunk(b"id: e1\ndata: 1\n\n"), pause, chunk(b"id: e2\ndata: 2\n\n") + END)
    passed = play.stage.scene(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")
    async with play.ask("/ask", scene, headers=[ALICE]) as answer:
        await answer.receive(1)
        answer.downstream.reset()
    seen = ("Last-Event-ID", "e1")
    assert (await fetched(play, "/ask", [BOB, seen], scene=passed))[0] == 418
    assert (await fetched(play, "/ask", [seen], scene=passed))[0] == 418
    async with play.ask("/ask", method="GET", headers=[ALICE, seen], body=b"") as again:
        pause.go()
        assert await again.to_end() == b"id: e2\ndata: 2\n\n"
    await play.reaches(stream_of(answer), "complete", [ALICE])
    assert (await fetched(play, "/ask", [ALICE, seen], scene=passed))[0] == 418, "now the upstream has it"


async def test_retry_of_a_request_joins_the_first_one(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(pause, HEAD + sent(1, 2) + END)
    again = ("x-stainless-retry-count", "1")
    async with play.asked("/ask", "POST", scene, headers=[ALICE], body=b"{}") as first:
        await scene.asked()
        async with (
            play.asked("/ask", "POST", scene, headers=[ALICE, again], body=b"{}") as second,
            play.asked("/ask", "POST", scene, headers=[BOB, again], body=b"{}") as other,
        ):
            pause.go()
            for downstream in (first, second, other):
                assert unstamped(await (await downstream.answer("POST")).to_end()) == events(1, 2)
    assert len(scene.requests) == 2, "the first request, and that of other credentials"


async def test_retry_joins_the_first_request_though_that_broke_before_its_answer(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(pause, HEAD + sent(1, 2) + END)
    count = "x-stainless-retry-count"
    async with play.asked("/ask", "POST", scene, headers=[ALICE, (count, "0")], body=b'{"a": 1}') as first:
        await scene.asked()
        first.reset()
    async with play.asked("/ask", "POST", scene, headers=[ALICE, (count, "1")], body=b'{"a": 1}') as second:
        pause.go()
        assert unstamped(await (await second.answer("POST")).to_end()) == events(1, 2)
    assert len(scene.requests) == 1


async def test_names_outlive_a_restart_and_are_found_by_every_worker(start_play: StartPlay) -> None:
    for workers in (1, 3):
        async with start_play({"workers": workers}, resume=CHAT) as play:
            for headers in ([ALICE], []):
                if workers == 1:
                    scene = play.stage.scene(HEAD + sent(1, 3) + END)
                    async with play.ask("/", scene, headers=headers, body=body("kept")) as answer:
                        await answer.to_end()
                    await play.reaches(stream_of(answer), "complete", headers)
                for _ in range(6):
                    assert await fetched(play, "/kept/stream", headers) == (200, events(1, 3), End.COMPLETE)


async def test_name_in_an_event_outlives_a_restart(start_play: StartPlay) -> None:
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_5"}}
    pause = Pause()
    for run in (1, 2):
        async with start_play(resume={"preset": "openai-responses"}) as play:
            if run == 1:
                scene = play.stage.scene(HEAD + said({"type": "other", "sequence_number": 0}), pause, said(created) + END)
                async with play.ask("/responses", scene, headers=[ALICE]) as answer:
                    await answer.receive(1)
                    await play.waits(stream_of(answer), lambda state: state.get("stream-blocks") == "1", [ALICE])
                    pause.go()
                    await answer.to_end()
                await play.reaches(stream_of(answer), "complete", [ALICE])
            status, got, _ = await fetched(play, "/responses/resp_5?stream=true")
            assert (status, got.count(b"data:")) == (200, 2)


async def test_stop_reaches_the_worker_that_has_the_answer(start_play: StartPlay) -> None:
    async with start_play({"workers": 3}, resume=CHAT) as play:
        for number in range(6):
            scene = play.stage.scene(HEAD + sent(1, 1), Silence())
            async with play.ask("/", scene, headers=[ALICE], body=body(f"s{number}")) as answer:
                await answer.receive(1)
                async with play.ask(f"/s{number}/stop", headers=[ALICE], body=b"") as stopped:
                    assert stopped.head.status == 204
                await scene.left()
