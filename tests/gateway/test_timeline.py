"""What is remembered of streams that ended and upstreams that were lost, and what of it is not told."""

from typing import Any

import pytest

from gateway.access.exchange import Exchange
from gateway.http.connection import WholeBody
from gateway.modes.observer import BACK, GAP, LOST
from gateway.observe.timeline import Timeline, shown_path, without_secrets
from gateway.policy.routes import Route
from gateway.streams.relay import COMPLETE, CUT, LEFT, Relay
from gateway.streams.wheel import TimerWheel

ROUTE = Route(path="/news", upstream="http://upstream.invalid")


async def end_stream(timeline: Timeline, verdict: str, reason: str = "", **facts: Any) -> None:
    relay = Relay(WholeBody(), TimerWheel(1.0))
    relay.blocks_out, relay.bytes_out = 3, 30
    relay.end(verdict, reason)
    timeline.note_end(Exchange(ROUTE, "GET", "/news?key=secret", "client", relay=relay, event_stream=True, **facts))


async def test_stream_that_ended_is_told_with_its_verdict_and_without_its_query() -> None:
    timeline = Timeline()
    await end_stream(timeline, COMPLETE)
    await end_stream(timeline, LEFT)
    assert [(ended["verdict"], ended["path"], ended["blocks"], ended["bytes"]) for ended in timeline.ended] == [
        (COMPLETE, "/news", 3, 30),
        (LEFT, "/news", 3, 30),
    ]
    assert timeline.marks == []


async def test_stream_that_was_cut_is_a_mark_as_well() -> None:
    timeline = Timeline()
    await end_stream(timeline, CUT, "http://upstream.invalid/news?key=secret: the server answered 500")
    [mark] = timeline.marks
    assert (mark["kind"], mark["route"], mark["path"]) == ("cut", "/news", "/news")
    assert mark["detail"] == "http://upstream.invalid/news?… the server answered 500"


async def test_only_the_newest_are_kept() -> None:
    timeline = Timeline()
    for number in range(1_000):
        timeline.mark(LOST, "/news", f"/news/{number}")
        await end_stream(timeline, LEFT) if number < 50 else None
    assert [mark["path"] for mark in timeline.marks] == [f"/news/{number}" for number in range(900, 1_000)]
    assert len(timeline.ended) == 30


def test_equal_marks_at_the_same_time_are_one_with_a_count() -> None:
    timeline = Timeline()
    for _ in range(10_000):
        timeline.mark(GAP, "/news", "/news", "too far back")
    timeline.mark(BACK, "/news", "/news")
    timeline.mark(GAP, "/news", "/news", "too far back")
    marks = [(mark["kind"], mark["count"]) for mark in timeline.marks]
    assert marks[-2:] == [(BACK, 1), (GAP, 1)]
    assert sum(count for kind, count in marks if kind == GAP) == 10_001
    assert len(marks) <= 6


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/news?key=secret", "/news"),
        ("/streams/00016bd9f1c2a4853e7702c9d84b15f3?last_event_id=1", "/streams/00016bd9…"),
        ("/" + "x" * 1_000, "/" + "x" * 199),
    ],
)
def test_path_is_shown_without_the_secret_part_of_a_stream_id(target: str, shown: str) -> None:
    assert shown_path(target) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("connection lost", "connection lost"),
        ("is it lost? yes", "is it lost? yes"),
        ("https://host/a?b=secret", "https://host/a?…"),
        ("redirect 302 to '/login?token=secret': no", "redirect 302 to '/login?… no"),
        ("http://host/a?next=/b?token=secret", "http://host/a?…"),
        ("host?token=secret/x", "host?…"),
        ("http://host/a?b=secret: 404, then http://host/?c#secret", "http://host/a?… 404, then http://host/?…"),
    ],
)
def test_message_is_shown_without_queries(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
