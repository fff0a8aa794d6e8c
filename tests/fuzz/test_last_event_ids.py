"""Last event IDs of any bytes, in fields and queries: a client gets what follows its event, or is told why not."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

from hypothesis import strategies as st

from eventstream import Event, Framer, Parser
from producer.settings import Settings
from tests.fuzz.fuzzing import TARGET, fuzz, mutated
from tests.fuzz.gatewaying import Rig, running
from tests.kit.downstream import Downstream
from tests.kit.producer import serve

pytestmark = TARGET

EVENTS = 5
NAMES = ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"]
PIECES = [
    b"-", b"--", b"0", b"1", b"5", b"6", b"00", b"9" * 20, b"1" * 300, b"+", b"%", b"%2D", b"%0a", b"%0d%0a", b"%00", b"%ff",
    b"%E4%B8%83", b"&", b"=", b";", b" ", b"\t", b",", b"e", b"\xff", b"\xc2\xb2", b"\xd9\xa1", b"last_event_id=", b"&lastEventId=",
    b"&last%5Fevent_id=", b"&Last-Event-ID=", b"?", b"x=y&",
]  # fmt: skip


class Story:
    """What there is to come back for: a topic with five events, and a kept answer with as many."""

    def __init__(self) -> None:
        self.epoch = ""
        self.stream = ""


def newest(fields: list[bytes], query: bytes) -> bytes:
    """Return the last event ID of a request: that of the last field, otherwise that of the query, whose names count in their order."""
    values = [value.strip(b" \t") for value in fields]
    if values and values[-1]:
        return values[-1]
    found: dict[str, str] = {}
    for parameter in query.decode("latin-1").split("&"):
        name, mark, value = parameter.partition("=")
        if mark and value:
            found[unquote_plus(name)] = unquote_plus(value)
    return next((found[name].encode("utf-8", "replace") for name in NAMES if name in found), b"")


def place_of(id: bytes, prefix: str) -> int | None:
    """Return the number of the event with an ID, or None if it is no ID of this stream."""
    match = re.fullmatch(rb"%b-(0|[1-9][0-9]*)" % prefix.encode(), id)
    return int(match[1]) if match and int(match[1]) <= EVENTS else None


async def ask(rig: Rig, path: str, fields: list[bytes], query: bytes, until: int | None) -> tuple[int, list[Event]]:
    """Return status and events of an answer, which is read to its end, or to this number of events."""
    target = path.encode() + (b"&" if "?" in path else b"?") + query
    lines = [b"GET %b HTTP/1.1" % target, b"Host: a", b"Accept: text/event-stream", *(b"Last-Event-ID: " + field for field in fields)]
    async with Downstream(rig.port) as client:
        await client.send(b"\r\n".join([*lines, b"", b""]))
        answer = await client.answer()

        def enough(body: bytes) -> bool:
            return until is not None and len(events_of(body)) >= until

        return answer.head.status, events_of(await answer.receive_until(enough))


def events_of(body: bytes) -> list[Event]:
    return Parser().feed(Framer().feed(body))


async def come_back(rig: Rig, story: Story, fields: list[bytes], query: bytes) -> None:
    asked = newest(fields, query)
    place = place_of(asked, story.epoch)
    expected = [str(number) for number in range((place or 0) + 1, EVENTS + 1)] if asked else []
    gaps = ["gap"] if asked and place is None else []
    status, events = await ask(rig, "/topics/t/events?follow=false", fields, query, None)
    assert status in (200, 204)
    assert [event.type for event in events][: len(gaps)] == gaps
    assert [event.data for event in events[len(gaps) :]] == expected
    if expected:
        if not asked.decode("utf-8", "surrogateescape").isprintable():
            expected = []  # no field can have it: the gateway does not ask the producer, and goes on with what comes next
        status, events = await ask(rig, "/events?topic=t", fields, query, len(gaps) + len(expected))
        assert status == 200
        assert [event.data for event in events if event.type != "gap"] == expected
        assert [event.type for event in events][: len(gaps)] == gaps
    place = place_of(asked, story.stream) if asked else 0
    status, events = await ask(rig, f"/streams/{story.stream}", fields, query, None)
    stamped = re.fullmatch(rb"%b-([0-9]{1,12})" % story.stream.encode(), asked)
    place = int(stamped[1]) if stamped and int(stamped[1]) <= EVENTS else place if stamped is None else None
    assert status == (400 if place is None else 204 if place == EVENTS and asked else 200), status
    assert [event.data for event in events] == ([] if place is None else list("abcde")[place:])


async def tell(rig: Rig, story: Story) -> None:
    """Publish the five events, and have five kept."""
    for number in range(1, EVENTS + 1):
        async with Downstream(rig.port) as client:
            await client.ask("/topics/t/events", "POST", [("Content-Type", "text/plain")], str(number).encode())
            answer = await client.answer("POST")
            assert answer.head.status == 201
            story.epoch = (await answer.to_end()).decode().split('"')[3].rpartition("-")[0]
    async with Downstream(rig.port) as client:
        await client.ask("/sse?interval_ms=0", "POST", [("Content-Type", "application/json")], b'{"message": "abcde"}')
        answer = await client.answer("POST")
        assert answer.head.status == 200
        story.stream = answer.head.value("Stream-Id") or ""
        assert story.stream
        await answer.to_end()


def test_last_event_ids(tmp_path: Path) -> None:
    story = Story()
    with running() as rig:
        producer = rig.enter(serve(Settings(demo=False, log_dir=tmp_path / "log", interval_ms=0, topic_retry_ms=0)))
        limits = {"upstream": f"http://127.0.0.1:{producer.port}", "heartbeat_seconds": 0.0}
        routes: list[dict[str, Any]] = [
            {"path": "/topics"},
            {"path": "/", "mode": "resumable", "retain_seconds": 86_400.0},
            {"path": "/events", "mode": "shared", "linger_seconds": 0.0},
        ]
        rig.serve_gateway([limits | route for route in routes], tmp_path / "gateway")
        rig.run(tell(rig, story))
        ids = [f"{prefix}-{number}".encode() for prefix in (story.epoch, story.stream) for number in range(EVENTS + 1)] + [b"", b"7"]
        queries = [name.encode() + b"=" + id for name in NAMES for id in (*ids[:3], *ids[6:9], b"")] + [b"", b"a=b"]
        fields = st.lists(mutated(ids, PIECES, 2).map(lambda id: re.sub(rb"[\0-\x08\x0a-\x1f\x7f]", b"", id)), max_size=2)
        query = mutated(queries, PIECES, 3).map(lambda query: re.sub(rb"[\0-\x20\x7f#\x80-\xff]", b"", query))

        def check_last_event_ids(fields: list[bytes], query: bytes) -> None:
            rig.run(come_back(rig, story, fields, query))

        fuzz(check_last_event_ids, fields, query, shrinks=False)
