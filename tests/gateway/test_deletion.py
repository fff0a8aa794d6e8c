"""What a DELETE makes stale, and what becomes of histories then."""

import re

import pytest

from gateway.policy.deletion import Deletion
from gateway.streams.subscriber import BEHIND
from tests.gateway.scripted_transport import Audience, append_all, blocks_of
from tests.kit.waiting import settle

HOST = "http://host:8000"


@pytest.mark.parametrize(
    ("deleted", "path", "stale"),
    [
        ("/topics/a", "/topics/a/events", True),
        ("/topics/a", "/topics/a", True),
        ("/topics/a/", "/topics/a/events", True),
        ("/topics/a", "/topics/a/events?from=start", True),
        ("/topics/a?really=yes", "/topics/a/events", True),
        ("/topics/a", "/topics/%61/events", True),
        ("/topics/%61", "/topics/a/events", True),
        ("/topics/a", "/topics/ab/events", False),
        ("/topics/a", "/topics", False),
        ("/topics/a/events", "/topics/a", False),
        ("/", "/topics/a", True),
    ],
)
def test_target_at_the_path_or_below_is_stale(deleted: str, path: str, stale: bool) -> None:
    assert Deletion.done(HOST + deleted, {}).covers(HOST + path, {}) is stale


@pytest.mark.parametrize("other", ["https://host:8000", "http://host:8001", "http://other:8000"])
def test_target_at_another_origin_is_not_stale(other: str) -> None:
    deletion = Deletion.done(f"{HOST}/a", {"Cache-Group-Invalidation": '"all"'})
    assert not deletion.covers(f"{other}/a", {"Cache-Groups": '"all"'})


@pytest.mark.parametrize(
    ("named", "groups", "stale"),
    [
        ('"topics"', '"topics"', True),
        ('"a", "topics";x=1', '"b","topics"', True),
        (r'"a \"b\" \\"', r'"a \"b\" \\"', True),
        ('"topics"', '"Topics"', False),
        ('"topics"', "", False),
        ("", '"topics"', False),
        ("topics", "topics", False),
        ('"unfinished', '"unfinished', False),
    ],
)
def test_target_of_a_group_in_the_answer_is_stale(named: str, groups: str, stale: bool) -> None:
    deletion = Deletion.done(f"{HOST}/topics/a", {"Cache-Group-Invalidation": named} if named else {})
    assert deletion.covers(f"{HOST}/events", {"Cache-Groups": groups} if groups else {}) is stale


async def test_live_subscriber_stays_and_lagging_one_is_disconnected_before_it_gets_deleted_events() -> None:
    audience = Audience()
    _, live = audience.join()
    slow, stuck = audience.join(takes=0)
    before = append_all(audience.fan_out, blocks_of(300, 1000))
    await settle(50)
    assert slow.paused
    had = len(stuck.body)
    audience.fan_out.append(b"newest\n\n", "7")  # and no turn has sent it yet
    audience.fan_out.clear("it was deleted")
    assert live.body == before + b"newest\n\n"
    assert (slow.verdict, slow.reason) == (BEHIND, "it was deleted")
    assert re.fullmatch(rb"retry: \d+\n|", stuck.body[had:]), "it is told when to come back, and no more"
    history = audience.fan_out.history
    assert (history.first, history.cost, audience.memory.amount) == (history.end, 0, 0)
    assert history.find("7") == history.end, "who has had the newest misses nothing"
    audience.fan_out.append(b"after\n\n", "8")
    await settle()
    assert live.body.endswith(b"newest\n\nafter\n\n")


async def test_history_without_subscribers_is_empty_after_it_was_cleared() -> None:
    audience = Audience()
    append_all(audience.fan_out, blocks_of(3000, 100))
    audience.fan_out.clear("it was deleted")
    _, transport = audience.join(audience.fan_out.history.first)
    await settle()
    assert transport.body == b""
    assert audience.fan_out.history.first_id() is None
