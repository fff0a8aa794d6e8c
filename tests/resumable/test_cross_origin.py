"""Pages of the origins that the upstream allows may resume a stream, read its state and stop it."""

import pytest

from tests.kit.downstream import Head
from tests.resumable.answers import END, last_id, sent, stream_of
from tests.resumable.conftest import BODY, Play

pytestmark = pytest.mark.asyncio(loop_scope="session")

ORIGIN = "https://page.example"
ALLOWING = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Access-Control-Allow-Origin: https://page.example\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n\r\n"
)


def assert_is_for_the_page(head: Head) -> None:
    assert head.value("Access-Control-Allow-Origin") == ORIGIN
    assert head.value("Access-Control-Allow-Credentials") == "true"
    assert head.value("Vary") == "Origin"


def exposed(head: Head) -> set[str]:
    """Return the header fields that a page may read, in lower case."""
    values = ", ".join(value for name, value in head.fields if name.lower() == "access-control-expose-headers")
    return {name.strip().lower() for name in values.split(",")}


async def test_page_may_read_stream_and_state(play: Play) -> None:
    scene = play.stage.scene(ALLOWING + sent(1, 2) + END)
    async with play.ask("/ask", scene, headers=[("Origin", ORIGIN)]) as answer:
        body = await answer.to_end()
    path = f"/streams/{stream_of(answer)}"
    assert_is_for_the_page(answer.head)
    assert exposed(answer.head) >= {"stream-id", "location"}
    async with play.ask(path, method="HEAD", body=b"") as looked:
        assert_is_for_the_page(looked.head)
        assert exposed(looked.head) >= {"stream-id", "location", "stream-state", "stream-blocks", "stream-bytes", "stream-viewers"}
        assert [value for name, value in looked.head.fields if name.lower() == "server"] == ["gateway"]
    async with play.ask(path, method="GET", headers=[("Last-Event-ID", last_id(body))], body=b"") as rest:
        assert rest.head.status == 204
        assert_is_for_the_page(rest.head)


async def test_page_may_send_a_last_event_id_and_stop_the_stream(play: Play) -> None:
    scene = play.stage.scene(ALLOWING + sent(1, 2) + END)
    async with play.ask("/ask", scene, headers=[("Origin", ORIGIN)]) as answer:
        await answer.to_end()
    path = f"/streams/{stream_of(answer)}"
    asking = [("Origin", ORIGIN), ("Access-Control-Request-Method", "DELETE"), ("Access-Control-Request-Headers", "last-event-id")]
    async with play.ask(path, method="OPTIONS", headers=asking, body=b"") as allowed:
        assert allowed.head.status == 204
        assert_is_for_the_page(allowed.head)
        assert "DELETE" in (allowed.head.value("Access-Control-Allow-Methods") or "")
        assert "Last-Event-ID" in (allowed.head.value("Access-Control-Allow-Headers") or "")
    async with play.ask(path, method="DELETE", headers=[("Origin", ORIGIN)], body=b"") as deleted:
        assert deleted.head.status == 204
        assert_is_for_the_page(deleted.head)


async def test_page_gets_no_permission_that_the_upstream_did_not_give(play: Play) -> None:
    scene = play.stage.scene(ALLOWING.replace(b"Access-Control-", b"X-") + sent(1, 2) + END)
    async with play.ask("/ask", scene, headers=[("Origin", ORIGIN)]) as answer:
        await answer.to_end()
    for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
        async with play.ask(f"/streams/{stream_of(answer)}", method=method, headers=[("Origin", ORIGIN)], body=b"") as other:
            assert [name for name, _ in other.head.fields if name.lower().startswith("access-control-")] == []


async def test_page_can_read_that_a_stream_is_gone(play: Play) -> None:
    scene = play.stage.scene(ALLOWING + sent(1, 2) + END)
    async with play.ask("/brief", scene, headers=[("Origin", ORIGIN)]) as answer:
        body = await answer.to_end()
    await play.waits(stream_of(answer), lambda state: state["status"] == "410")
    never, gone = ("GET", f"/streams/{'0' * 32}", b""), ("GET", f"/streams/{stream_of(answer)}", b"")
    for (method, path, sent_body), status in ((never, 404), (gone, 410), (("POST", "/brief", BODY), 410)):
        headers = [("Origin", ORIGIN), ("Last-Event-ID", last_id(body))]
        async with play.ask(path, scene, method=method, headers=headers, body=sent_body) as refused:
            assert (refused.head.status, refused.head.value("Access-Control-Allow-Origin")) == (status, "*")
