"""Test the findings on IDs and on resuming with `Last-Event-ID`."""

import pytest

from gateway.doctor.anatomy import dissect
from gateway.doctor.findings import Finding
from gateway.doctor.observation import Observation
from gateway.doctor.resuming import Resumption, choose_id, judge_ids, judge_resumption
from tests.doctor.traces import ASKED, PLAIN, by_check, every, head, numbered, seen

FIRST = dissect(seen(every(0.1, numbered(10))).body)
BEHIND = 4  # the id sent is 5, and five events are known to follow


def judged(blocks: list[bytes], behind: int = BEHIND, **options: object) -> dict[str, Finding]:
    again = Resumption(behind, seen(every(0.01, blocks), **options))  # type: ignore[arg-type]
    return by_check(judge_resumption(FIRST, again, PLAIN))


def test_doctor_resumes_after_an_event_in_the_middle() -> None:
    assert choose_id(FIRST.events) == BEHIND
    assert choose_id(dissect(seen([(0.1, b"data: a\n\n")]).body).events) is None
    assert choose_id(dissect(seen([(0.1, b"data: a\n\nid: 1\ndata: b\n\n")]).body).events) == 1


@pytest.mark.parametrize(
    ("blocks", "severity", "words"),
    [
        (numbered(5, first=6), "ok", "after 5: resumes, 5 of 5 missed events arrived, in order"),
        (numbered(9, first=6), "ok", "resumes, 5 of 5"),
        (numbered(3, first=6), "ok", "resumes, 3 of 5"),
        (numbered(10), "problem", "ignored: starts again at the first event"),
        (numbered(5, first=5), "problem", "repeats 1 events"),
        (numbered(5, first=3), "problem", "repeats 3 events"),
        (numbered(5, first=8), "problem", "skips 2 events"),
        (numbered(5, first=11), "problem", "skips all 5 missed events and starts with newer ones"),
        ([b"id: 5\nevent: gap\ndata: {}\n\n", *numbered(5, first=11)], "warning", "(an event announces the gap)"),
        ([numbered(1, first=6)[0], *numbered(3, first=8)], "problem", "resumes, but with different events"),
        ([], "problem", "none of the 5 missed events arrived"),
    ],
)
def test_doctor_compares_the_events_of_a_reconnection(blocks: list[bytes], severity: str, words: str) -> None:
    finding = judged(blocks)["resuming"]
    assert finding.severity == severity
    assert words in finding.seen


def test_ids_that_now_name_other_events_are_a_problem() -> None:
    assert judged(numbered(5, first=6, text="something else"))["resuming"].seen == (
        "asked to resume after 5: resumes, but these ids now name other events"
    )


def test_stream_that_ends_before_the_last_missed_event_is_a_problem() -> None:
    assert "ends 2 events early" in judged(numbered(3, first=6), ending="complete")["resuming"].seen


def test_reconnection_after_the_newest_event_is_a_problem_only_if_events_repeat() -> None:
    assert judged([], behind=9)["resuming"].severity == "note"
    assert judged(numbered(2, first=11), behind=9)["resuming"].severity == "note"
    assert judged(numbered(10), behind=9)["resuming"].severity == "problem"


def test_reconnection_that_is_refused_is_a_problem() -> None:
    for observation in (seen([], answer=head(status=400)), Observation(ASKED, ended_seconds=ASKED + 5)):
        [finding] = judge_resumption(FIRST, Resumption(BEHIND, observation), PLAIN)
        assert (finding.check, finding.severity) == ("coming back", "problem")


@pytest.mark.parametrize(
    ("body", "severity", "words"),
    [
        (b"".join(numbered(3)), "ok", "3 of 3 events have one, such as 3"),
        (b"data: a\n\ndata: b\n\n", "warning", "none of 2 events"),
        (b"id: 1\ndata: a\n\nid: 1\ndata: b\n\n", "warning", "1 used more than once, such as 1"),
        (b"id: 1\ndata: a\n\ndata: b\n\n", "note", "1 of 2 events"),
        (b": ping\n\n", "note", "no event"),
    ],
)
def test_doctor_reports_missing_and_repeated_ids(body: bytes, severity: str, words: str) -> None:
    finding = judge_ids(dissect(seen([(0.1, body)]).body), PLAIN)
    assert finding.severity == severity
    assert words in finding.seen


@pytest.mark.parametrize(
    ("blocks", "severity", "words"),
    [
        ([b"data: 1\n\n", b"data: 2\n\n"], "warning", "starts again at the first event"),
        ([b"data: 7\n\n"], "warning", "starts with new events"),
        ([b":\n\n"], "note", "no event arrived"),
    ],
)
def test_doctor_reports_how_a_stream_without_ids_restarts(blocks: list[bytes], severity: str, words: str) -> None:
    first = dissect(seen(every(0.1, [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"])).body)
    findings = by_check(judge_resumption(first, Resumption(None, seen(every(0.1, blocks))), PLAIN))
    assert findings["resuming"].severity == severity
    assert words in findings["resuming"].seen
    assert findings["coming back"].severity == "ok"
