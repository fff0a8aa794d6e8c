"""Test the findings on an answer's head and on compression."""

import dataclasses

import pytest

from gateway.doctor.answer import judge_answer
from gateway.doctor.diagnosis import Examination, diagnose
from gateway.doctor.findings import Finding
from gateway.doctor.observation import Head, Observation
from tests.doctor.traces import ASKED, PLAIN, by_check, every, head, numbered, seen

TICKS = every(0.2, numbered(20))


def judged(answer: Head, trace: list[tuple[float, bytes]] = TICKS) -> dict[str, Finding]:
    return by_check(judge_answer(seen(trace, answer=answer), PLAIN))


def test_usual_head_gives_no_complaints() -> None:
    findings = judged(head())
    assert {finding.severity for finding in findings.values()} == {"ok"}
    assert findings["first byte"].seen == "head after 0.01 s, first byte after 0.02 s"


@pytest.mark.parametrize(
    ("answer", "check", "severity", "words"),
    [
        (head(status=204), "status", "note", "204"),
        (head(status=401), "status", "problem", "401"),
        (head(status=404), "status", "problem", "404"),
        (head(status=502), "status", "problem", "502"),
        (head(("Content-Type", "application/json")), "content type", "problem", "application/json"),
        (head(("Content-Type", "")), "content type", "problem", "none"),
        (head(("Content-Type", "text/event-stream; charset=utf-8")), "content type", "ok", "charset=utf-8"),
        (head(("Content-Type", "text/event-stream; charset=latin-1")), "content type", "warning", "latin-1"),
        (head(version=(1, 0)), "http version", "warning", "HTTP/1.0"),
        (head(("Transfer-Encoding", "")), "http version", "warning", "HTTP/1.1"),
        (head(status=429), "content type", "warning", "text/event-stream on status 429"),
        (head(("Content-Type", "application/json"), status=401), "status", "problem", "401"),
        (head(("Content-Encoding", "none")), "compression", "warning", "Content-Encoding: none"),
        (head(("Content-Encoding", "identity")), "compression", "ok", "none, as requested"),
        (head(("Content-Encoding", "gzip")), "compression", "problem", "gzip, not requested"),
        (head(("Content-Length", "400"), ("Transfer-Encoding", "")), "length", "problem", "Content-Length: 400"),
        (head(("X-Cache", "HIT from cdn")), "caching", "problem", "X-Cache: HIT"),
        (head(("Cache-Control", "")), "caching", "note", "no Cache-Control"),
        (head(("Cache-Control", "max-age=60")), "caching", "note", "max-age=60"),
        (head(after=2.0), "first byte", "warning", "head after 2.00 s"),
    ],
)
def test_doctor_finds_each_fault_of_a_head(answer: Head, check: str, severity: str, words: str) -> None:
    finding = judged(answer)[check]
    assert finding.severity == severity
    assert words in finding.seen


def test_late_head_with_the_first_bytes_points_to_the_buffering_proxy() -> None:
    finding = judged(head(("Server", "nginx"), after=3.0), [(3.01, b"data: a\n\n")])["first byte"]
    assert "together with the body" in finding.means
    assert "proxy_buffering off" in finding.do


def test_server_without_an_answer_is_a_problem() -> None:
    [silent] = judge_answer(Observation(ASKED, ended_seconds=ASKED + 30), PLAIN)
    [closed] = judge_answer(Observation(ASKED, ending="cut", ended_seconds=ASKED + 1, failure="Server disconnected"), PLAIN)
    assert silent.severity == closed.severity == "problem"
    assert silent.seen == "connected, but no answer within 30.0 s"
    assert closed.seen == "failed after 1.0 s without an answer: Server disconnected"


def test_body_of_a_refusal_is_not_judged() -> None:
    page = head(("Content-Type", "text/html"), status=404)
    findings = diagnose(Examination("http://example.org/", seen([(0.1, b"<html>")], answer=page)), PLAIN)
    assert [finding.check for finding in findings] == ["status", "http version", "first byte"]


def test_doctor_judges_events_under_a_wrong_content_type_but_not_a_page() -> None:
    wrong = head(("Content-Type", "text/plain"))
    events, page = (
        by_check(diagnose(Examination("http://example.org/", seen([(0.1, body)], answer=wrong)), PLAIN))
        for body in (b"data: a\n\n", b"<html>")
    )
    assert events["content type"].severity == page["content type"].severity == "problem"
    assert "ids" in events
    assert "ids" not in page


def offered(answer: Observation) -> Finding:
    examination = Examination("http://example.org/", seen(TICKS), compressed=answer)
    return by_check(diagnose(examination, PLAIN))["compression offered"]


def test_compression_is_a_problem_only_if_it_delays_events() -> None:
    gzip = head(("Content-Encoding", "gzip"))
    flushed = dataclasses.replace(seen(TICKS, answer=gzip), wire_bytes=100)
    collected = seen([(0.2 * number, b"".join(numbered(5, 5 * number))) for number in (5, 10, 15, 20)], answer=gzip)
    assert offered(flushed).severity == "note"
    assert offered(flushed).seen == f"gzip, to {100 / flushed.size:.0%}"
    assert offered(collected).severity == "problem"
    assert offered(seen([], answer=gzip)).seen == "gzip: no byte arrived"
    assert offered(Observation(ASKED, ended_seconds=ASKED + 5)).severity == "problem"
    assert offered(dataclasses.replace(seen([], answer=gzip), undecodable=True, failure="not gzip")).seen == "gzip: not gzip"
    assert offered(seen([], answer=head(status=406))).severity == "problem"
    assert offered(seen(TICKS)).severity == "ok"


@pytest.mark.parametrize(("protocol", "severity"), [("h2", "ok"), ("http/1.1", "note")])
def test_doctor_reports_whether_the_server_offers_http_2(protocol: str, severity: str) -> None:
    findings = by_check(diagnose(Examination("https://example.org/", seen(TICKS), protocol=protocol), PLAIN))
    assert findings["http/2"].severity == severity
