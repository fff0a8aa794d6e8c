"""The places of a client's last event ID: one header field, several, or the query."""

import pytest

from tests.resumable.answers import END, HEAD, events, sent, stream_of, unstamped
from tests.resumable.conftest import Play

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLACES = ["?last_event_id={id}", "?lastEventId={id}", "?lastEventID={id}", "?Last-Event-ID={id}", "several fields"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["the stream", "the same POST", "the same GET"])
async def test_client_resumes_with_its_last_event_id_in_any_place(play: Play, way: str, place: str) -> None:
    method, body = ("GET", b"") if way == "the same GET" else ("POST", b"{}")
    target = "/get?a=1" if way == "the same GET" else "/ask?a=1"
    scene = play.stage.scene(HEAD + sent(1, 3) + END)
    async with play.ask(target, scene, method=method, body=body) as answer:
        await answer.to_end()
    stream = stream_of(answer)
    id = f"{stream}-2"
    query = "" if place == "several fields" else place.format(id=id)
    fields = [("Last-Event-ID", f"{stream}-1"), ("Last-Event-ID", id)] if place == "several fields" else []
    again = {
        "the stream": play.ask(f"/streams/{stream}{query}", method="GET", headers=fields, body=b""),
        "the same POST": play.ask(target.replace("?", f"{query}&") if query else target, scene, headers=fields, body=body),
        "the same GET": play.ask(target.replace("?", f"{query}&") if query else target, scene, method="GET", headers=fields, body=body),
    }[way]
    async with again as rest:
        assert unstamped(await rest.to_end()) == events(3, 3)
    assert stream_of(rest) == stream
    assert len(scene.requests) == 1


async def test_id_of_another_origin_is_sent_to_the_upstream_unchanged(play: Play) -> None:
    scene = play.stage.scene(HEAD + sent(1, 1) + END)
    async with play.ask("/ask?a=1&lastEventId=7", scene) as answer:
        await answer.to_end()
    assert scene.requests[0].target == "/ask?a=1&lastEventId=7"
