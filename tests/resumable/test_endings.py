"""The end of a stream is reported truthfully, while it is kept and after."""

import pytest

from tests.kit.downstream import End
from tests.kit.upstream import Disconnect, Flood, Pause, Silence, chunk
from tests.resumable.answers import END, HEAD, event, events, last_id, sent, stream_of, unstamped
from tests.resumable.conftest import BODY, BOTH_SCHEMES, Play

pytestmark = [pytest.mark.asyncio(loop_scope="session"), BOTH_SCHEMES]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_stream_that_the_upstream_cut_never_looks_complete(play: Play, reset: bool) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2), Disconnect(reset))
    async with play.ask("/ask", scene) as answer:
        assert unstamped(await answer.to_end()) == events(1, 2)
        assert answer.end is End.CUT_SHORT
    state = await play.reaches(stream_of(answer), "cut")
    assert "connection" in state["stream-reason"]
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", body=b"") as again:
        assert unstamped(await again.to_end()) == events(1, 2)
        assert again.end is End.CUT_SHORT


async def test_cut_is_reported_by_an_event_where_the_route_says_so(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1), Disconnect())
    async with play.ask("/error-event", scene) as answer:
        body = await answer.to_end()
        assert answer.end is End.CUT_SHORT, "client libraries take a clean end for success"
    first, _, error = body.partition(b"\n\n")
    assert unstamped(first + b"\n\n") == event(1)
    assert error.startswith(b"data: {")
    assert error.endswith(b"}\nevent: error\n\n")
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", body=b"") as again:
        assert await again.to_end() == body


async def test_delete_stops_the_stream_and_its_upstream(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1), Silence())
    async with play.ask("/ask", scene) as answer:
        await answer.receive(1)
        async with play.ask(f"/streams/{stream_of(answer)}", method="DELETE", body=b"") as deleted:
            assert deleted.head.status == 204
        await scene.left()
        await answer.to_end()
        assert answer.end is End.CUT_SHORT
    assert (await play.state(stream_of(answer)))["stream-state"] == "stopped"


@pytest.mark.parametrize("route", ["/paid", "/orphan"])
async def test_stream_without_a_client_is_cancelled_in_time(play: Play, route: str) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1), Silence())
    async with play.ask(route, scene) as answer:
        await answer.receive(1)
        answer.downstream.reset()
    await scene.left()
    state = await play.reaches(stream_of(answer), "orphaned")
    assert "no client followed it" in state["stream-reason"]


async def test_stream_with_a_client_is_no_orphan(play: Play) -> None:
    pause = Pause()
    scene = play.stage.scene(HEAD + sent(1, 1), pause, sent(2, 2) + END)
    async with play.ask("/orphan", scene) as first:
        await first.receive(1)
        async with play.ask(f"/streams/{stream_of(first)}", method="GET", body=b"") as second:
            first.downstream.reset()
            with pytest.raises(AssertionError, match="after 3"):
                await second.receive_until(lambda body: b"data: 2" in body, timeout=3)
            pause.go()
            assert unstamped(await second.to_end()) == events(1, 2)


async def test_stream_that_grows_too_large_ends_with_that_reason(play: Play) -> None:
    scene = play.stage.scene(HEAD, Flood(b"data: %s\n\n" % (b"x" * 100)))
    async with play.ask("/small", scene) as answer:
        body = await answer.to_end()
        assert answer.end is End.CUT_SHORT
    assert 2000 < len(body) < 200_000
    state = await play.reaches(stream_of(answer), "too-large")
    assert "2000 bytes" in state["stream-reason"]


async def test_expired_stream_is_gone_with_the_reason(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/brief", scene) as answer:
        body = await answer.to_end()
    await play.waits(stream_of(answer), lambda state: state["status"] == "410")
    for method, target, sent_body in (("GET", f"/streams/{stream_of(answer)}", b""), ("POST", "/brief", BODY)):
        async with play.ask(target, scene, method=method, headers=[("Last-Event-ID", last_id(body))], body=sent_body) as gone:
            assert gone.head.status == 410
            assert b"complete" in await gone.to_end()
    assert len(scene.requests) == 1


@pytest.mark.parametrize("target", ["/streams/", "/streams/0123456789abcdef0123456789abcdef", "/streams/a/b"])
async def test_stream_that_never_existed_is_404(play: Play, target: str) -> None:
    async with play.ask(target, method="GET", body=b"") as answer:
        assert answer.head.status == 404


async def test_id_of_another_stream_is_refused(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    async with play.ask("/ask", scene) as answer:
        await answer.to_end()
    for wrong in (f"{'0' * 32}-1", f"{stream_of(answer)}-3", "17"):
        async with play.ask(f"/streams/{stream_of(answer)}", method="GET", headers=[("Last-Event-ID", wrong)], body=b"") as refused:
            assert refused.head.status == 400
            assert wrong.encode() in await refused.to_end()


async def test_other_methods_are_refused_for_a_stream(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1) + END)
    async with play.ask("/ask", scene) as answer:
        await answer.to_end()
    async with play.ask(f"/streams/{stream_of(answer)}", method="PUT") as refused:
        assert (refused.head.status, refused.head.value("Allow")) == (405, "GET, HEAD, DELETE, OPTIONS")


async def test_client_that_opened_a_stream_with_credentials_resumes_with_them(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 2) + END)
    mine = ("Authorization", "Bearer mine")
    async with play.ask("/ask", scene, headers=[mine]) as answer:
        body = await answer.to_end()
    path = f"/streams/{stream_of(answer)}"
    for method in ("GET", "HEAD", "DELETE"):
        for headers in ([], [("Authorization", "Bearer other")]):
            async with play.ask(path, method=method, headers=headers, body=b"") as refused:
                assert refused.head.status == 403, (method, headers)
    async with play.ask("/ask", scene, headers=[("Last-Event-ID", last_id(body))]) as refused:
        assert refused.head.status == 403
    async with play.ask(path, method="GET", headers=[mine], body=b"") as allowed:
        assert await allowed.to_end() == body


async def test_answer_other_than_an_event_stream_passes_as_in_mode_direct(play: Play) -> None:
    scene = play.stage.scene(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    for _ in range(2):
        async with play.ask("/ask", scene, headers=[("Idempotency-Key", "json")]) as answer:
            assert (await answer.to_end(), answer.head.value("Stream-Id")) == (b"{}", None)
    assert len(scene.requests) == 2


async def test_error_of_the_upstream_passes_even_as_an_event_stream(play: Play) -> None:
    scene = play.stage.scene(HEAD.replace(b"200 OK", b"429 Slow Down") + chunk(b"data: later\n\n") + END)
    async with play.ask("/ask", scene) as answer:
        assert (answer.head.status, await answer.to_end(), answer.head.value("Stream-Id")) == (429, b"data: later\n\n", None)


async def test_upstream_that_does_not_answer_is_504(play: Play) -> None:
    scene = play.stage.scene(Silence())
    async with play.ask("/late", scene) as answer:
        assert answer.head.status == 504


async def test_client_that_disconnects_before_the_answer_cancels_it_unless_it_has_a_key(play: Play) -> None:
    scene = play.stage.scene(Silence())
    async with play.ask_without_answer("/ask", scene):
        await scene.asked()
    await scene.left()
    pause = Pause()
    scene = play.stage.scene(pause, HEAD + sent(1, 1) + END)
    key = [("Idempotency-Key", "left early")]
    async with play.ask_without_answer("/ask", scene, headers=key):
        await scene.asked()
    pause.go()
    async with play.ask("/ask", scene, headers=key) as answer:
        assert unstamped(await answer.to_end()) == event(1)
    assert len(scene.requests) == 1


async def test_stream_in_an_unknown_coding_passes_unchanged(play: Play) -> None:
    coded = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: compress\r\n\r\n")
    scene = play.stage.scene(coded + chunk(b"\x1f\x9d\x90d\xc2") + END)
    async with play.ask("/ask", scene) as answer:
        assert (await answer.to_end(), answer.head.value("Stream-Id")) == (b"\x1f\x9d\x90d\xc2", None)


async def test_cookies_are_sent_only_to_the_request_that_they_answered(play: Play) -> None:
    scene = play.stage.scene(HEAD.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n") + sent(1, 1) + END)
    async with play.ask("/ask", scene) as answer:
        await answer.to_end()
    assert answer.head.values("Set-Cookie") == ["a=1", "b=2"]
    async with play.ask(f"/streams/{stream_of(answer)}", method="GET", body=b"") as again:
        assert again.head.values("Set-Cookie") == []
