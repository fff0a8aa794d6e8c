"""Events become lines of the log: repeats, gaps, positions."""

import itertools
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.intake import Intake
from consumer.recovery import Recovered, Seen
from eventstream import Event
from tests.kit.consumer import record


class Talk:
    """An intake, and the records of the events so far."""

    def __init__(self, *recent: Seen, window: int = 100, gaps_from_ids: bool = True) -> None:
        recovered = Recovered("e", len(recent) + 1, recent=list(recent))
        self.intake = Intake("s", recovered, window=window, gaps_from_ids=gaps_from_ids)
        self.lines: list[dict[str, Any]] = []

    def connect(self, asked: str = "") -> "Talk":
        self.intake.connected(asked)
        return self

    def say(self, *ids: str | None, data: str | None = None, type: str = "message") -> "Talk":
        for id in ids:
            event = Event(f"data {id}" if data is None else data, type, id, last_event_id=id or "")
            self.lines += (json.loads(record.encode()) for record in self.intake.take(event))
        return self

    @property
    def ids(self) -> list[str | None]:
        return ["gap" if "gap" in line else line["id"] for line in self.lines]


def logged(*ids: str | None) -> list[Seen]:
    return [Seen.of(record(number, id, data=f"data {id}")) for number, id in enumerate(ids, 1)]


def test_events_are_numbered_without_holes_even_when_repeats_are_dropped() -> None:
    talk = Talk().connect().say("1", "2").connect("2").say("1", "2", "3").connect("3").say("3", "9", None)
    positions = [line["position"] for line in talk.lines]
    assert positions == [f"e-{number}" for number in range(1, len(positions) + 1)]


def test_repeats_from_before_the_connection_are_dropped_wherever_the_server_starts() -> None:
    for begin in range(1, 6):
        talk = Talk().connect().say("1", "2", "3", "4").connect("4").say(*map(str, range(begin, 8)))
        assert talk.ids == ["1", "2", "3", "4", "5", "6", "7"]
        assert talk.intake.tally.duplicates == 5 - begin


def test_repeats_after_a_restart_are_dropped() -> None:
    talk = Talk(*logged("1", "2", "3")).connect("3").say("1", "2", "3", "4")
    assert talk.ids == ["4"]


def test_event_with_a_known_id_and_other_content_is_logged_when_a_server_restarts_its_numbering() -> None:
    talk = Talk().connect().say("1", "2").connect("2").say("1", "2", data="other")
    assert talk.ids == ["1", "2", "1", "2"]
    assert not any("repeat" in line for line in talk.lines)
    assert talk.connect("2").say("1", type="other", data="other").ids[-1] == "1"


def test_event_that_the_source_sends_twice_on_one_connection_is_logged_as_a_repeat() -> None:
    talk = Talk().connect().say("1", "1", "2")
    assert talk.ids == ["1", "1", "2"]
    assert [line.get("repeat") for line in talk.lines] == [None, True, None]


def test_constant_event_is_dropped_only_once_per_connection() -> None:
    talk = Talk().connect().say("tick", "tick").connect("tick").say("tick", "tick", "tick")
    assert talk.ids == ["tick"] * 4
    assert talk.intake.tally.duplicates == 1


def test_several_events_with_one_id_are_all_logged() -> None:
    talk = Talk().connect().say("5", data="a").say("5", data="b").connect("5").say("5", data="a").say("5", data="b").say("5", data="c")
    assert [line["data"] for line in talk.lines] == ["a", "b", "c"]


def test_window_forgets_the_oldest() -> None:
    talk = Talk(window=3).connect().say("a", "b", "c", "d").connect("d").say("b", "a")
    assert talk.ids == ["a", "b", "c", "d", "a"]


def test_events_without_ids_are_all_logged() -> None:
    talk = Talk().connect().say(None, None, data="x").connect().say(None, data="x").say("", data="x").connect().say("", data="x")
    assert talk.ids == [None, None, None, "", ""]


def test_line_without_an_id_carries_the_last_event_id() -> None:
    talk = Talk().connect()
    [made] = talk.intake.take(Event("x", id=None, last_event_id="7"))
    assert (made.last_event_id, made.checkpoint) == ("7", "7")
    [made] = talk.intake.take(Event("x", id="", last_event_id=""))
    assert made.checkpoint == ""


def test_dropped_repeats_are_reported_once_per_connection() -> None:
    talk = Talk(*logged("1", "2", "3"))
    with capture_logs() as facts:
        talk.connect("3").say("1", "2", "3", "4", "5").connect("5").say("5").connect("5")
    assert [(fact["event"], fact["count"]) for fact in facts] == [("repeats dropped", 3), ("repeats dropped", 1)]


@pytest.mark.parametrize("prefix", ["", "7f-", "a-b-"])
def test_jump_of_consecutive_ids_at_a_reconnection_is_a_gap(prefix: str) -> None:
    talk = Talk().connect().say(f"{prefix}1", f"{prefix}2").connect(f"{prefix}2").say(f"{prefix}5", f"{prefix}6")
    assert talk.ids == [f"{prefix}1", f"{prefix}2", "gap", f"{prefix}5", f"{prefix}6"]
    gap = talk.lines[2]
    assert gap["gap"] == {"after": f"{prefix}2", "before": f"{prefix}5", "missed": 2, "reason": "the IDs jumped at a reconnection"}
    assert (gap["id"], gap["last_event_id"]) == (None, f"{prefix}2")
    assert (talk.intake.tally.gaps, talk.intake.tally.missed, talk.intake.tally.events) == (1, 2, 4)


def test_jump_of_the_ids_of_some_topics_is_no_gap_but_a_gap_event_of_the_source_is() -> None:
    talk = Talk(gaps_from_ids=False).connect().say("7f-1", "7f-2").connect("7f-2").say("7f-5").connect("7f-5").say("7f-8", type="gap")
    assert talk.ids == ["7f-1", "7f-2", "7f-5", "gap"]
    assert talk.intake.tally.gaps == 1


def test_jump_after_a_restart_is_a_gap() -> None:
    assert Talk(*logged("1", "2", "3")).connect("3").say("6").ids == ["gap", "6"]


def test_second_jump_is_a_gap_too() -> None:
    assert Talk().connect().say("1", "2").connect("2").say("5").connect("5").say("9").ids == ["1", "2", "gap", "5", "gap", "9"]


def test_gap_is_found_after_repeats() -> None:
    assert Talk().connect().say("1", "2").connect("2").say("1", "2", "4").ids == ["1", "2", "gap", "4"]


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        (["1", "2"], "2", ["3"]),
        (["1", "2"], "", ["9"]),  # no ID was sent: the server chooses where to continue
        (["1", "2"], "8", ["9"]),  # a block without data updated the last event ID
        (["1", "2"], "2", ["x"]),
        (["1", "2"], "2", ["02"]),
        (["5", "6"], "6", ["1", "2"]),  # the server restarts its numbering
        (["a-1", "a-2"], "a-2", ["b-9"]),  # another epoch: the server knows what is lost, the consumer does not
        (["1", "3", "4"], "4", ["9"]),  # never were consecutive
        (["7"], "7", ["9"]),  # one ID is no sequence
        (["x", "1", "2"], "2", ["9"]),
        (["1", None, "2", "x"], "x", ["9"]),
    ],
)
def test_no_gap_is_invented(before: list[str | None], asked: str, after: list[str]) -> None:
    talk = Talk().connect().say(*before).connect(asked).say(*after)
    assert talk.ids == [*before, *after]


def test_jump_within_a_connection_is_no_gap() -> None:
    assert Talk().connect().say("1", "2").connect("2").say("3", "9").ids == ["1", "2", "3", "9"]


def test_gap_event_of_the_source_keeps_its_content() -> None:
    told = {"after": "5", "before": "9", "missed": 3, "more": [1]}
    talk = Talk().connect().say("4", "5").connect("5").say(None, type="gap", data=json.dumps(told)).say("9", "10")
    assert talk.ids == ["4", "5", "gap", "9", "10"], "the source reported the gap, so it is not reported again"
    assert talk.lines[2]["gap"] == told | {"reason": "the source said so"}
    assert "data" not in talk.lines[2]
    assert talk.intake.tally.missed == 3


@pytest.mark.parametrize(
    ("data", "gap"),
    [
        ("lost some", {"data": "lost some", "reason": "the source said so"}),
        ("[1]", {"data": [1], "reason": "the source said so"}),
        ("[" * 100_000, {"data": "[" * 100_000, "reason": "the source said so"}),
        ('{"reason": "retention"}', {"reason": "retention"}),
    ],
)
def test_gap_event_may_contain_anything(data: str, gap: dict[str, Any]) -> None:
    assert Talk().connect().say("8", type="gap", data=data).lines[0]["gap"] == gap


def test_every_history_of_reconnections_logs_each_id_once() -> None:
    """Try all ways in which a server may cut and overlap five events over three connections."""
    for cuts in itertools.product(range(6), repeat=3):
        talk = Talk()
        have = 0
        for cut in [*cuts, 5]:
            for begin in (1, have + 1):
                talk.connect(str(have) if have else "").say(*map(str, range(begin, max(cut, have) + 1)))
            have = max(cut, have)
        assert talk.ids == ["1", "2", "3", "4", "5"]
