"""Test the findings on silence, heartbeats and the end of a stream."""

import pytest

from gateway.doctor.anatomy import dissect
from gateway.doctor.findings import Finding
from gateway.doctor.lifetime import judge_lifetime, longest_silence
from gateway.doctor.observation import Ending, Observation
from tests.doctor.traces import PLAIN, by_check, every, head, numbered, seen


def judged(observation: Observation) -> dict[str, Finding]:
    return by_check(judge_lifetime(observation, dissect(observation.body), PLAIN))


@pytest.mark.parametrize(
    ("beat", "form"),
    [
        (b":\n", "comment line :"),
        (b": keep-alive\n", "comment line : keep-alive"),
        (b": ping\n\n", "comment line : ping and a blank line"),
        (b"event: ping\ndata: {}\n\n", "an event of type ping"),
    ],
)
def test_heartbeat_is_reported_with_its_form_and_interval(beat: bytes, form: str) -> None:
    trace = [(0.1, b"data: a\n\n"), *((15.0 * number, beat) for number in range(1, 5)), (65.0, b"data: b\n\n")]
    finding = judged(seen(trace))["heartbeat"]
    assert (finding.severity, finding.seen) == ("ok", f"4, 15.0 s apart: {form}; longest silence 15.0 s")


def test_heartbeat_that_waits_for_its_block_still_counts() -> None:
    assert judged(seen([(0.1, b"data: a\n\n"), (10, b":\n"), (20, b":\n")], until=21))["heartbeat"].seen.startswith("2, 10.0 s apart")


def test_comment_that_arrives_with_its_event_is_no_heartbeat() -> None:
    finding = judged(seen([(0.1, b": hello\ndata: a\n\n")], until=20))["heartbeat"]
    assert (finding.severity, finding.seen) == ("warning", "none; longest silence 19.9 s")


def test_long_silence_without_heartbeats_is_a_warning_and_a_short_one_is_not() -> None:
    assert judged(seen([(0.1, b"data: a\n\n")], until=16))["heartbeat"].severity == "warning"
    assert judged(seen([(0.1, b"data: a\n\n")], until=5))["heartbeat"].severity == "ok"
    assert judged(seen([], until=5))["heartbeat"].severity == "note"
    assert judged(seen([], until=50))["heartbeat"].severity == "warning"


def test_heartbeats_rarer_than_proxy_timeouts_are_a_warning() -> None:
    assert judged(seen(every(59, [b":\n"] * 3)))["heartbeat"].severity == "warning"


@pytest.mark.parametrize(
    ("ending", "rest", "severity", "words"),
    [
        ("open", b"", "ok", "still open after 1.0 s"),
        ("complete", b"", "ok", "ended cleanly after 1.0 s, after a complete block"),
        ("complete", b":\n", "ok", "after a comment line"),
        ("complete", b"data: hal", "problem", "inside a block: data: hal"),
        ("complete", b"retry: 1000\n", "ok", "after a retry line"),
        ("complete", b"data: [DONE]\n", "problem", "inside a block: data: [DONE]"),
        ("cut", b"", "problem", "closed after 1.0 s without the last chunk"),
        ("cut", b"data: hal", "problem", "without the last chunk, 9 bytes into a block"),
        ("reset", b"", "problem", "reset after 1.0 s: connection reset by peer"),
    ],
)
def test_doctor_describes_how_the_stream_ended(ending: Ending, rest: bytes, severity: str, words: str) -> None:
    observation = seen([(0.1, numbered(1)[0] + rest)], ending=ending, until=1.0, failure="connection reset by peer")
    finding = judged(observation)["end"]
    assert finding.severity == severity
    assert words in finding.seen


def test_end_inside_a_block_is_explained_by_its_cause() -> None:
    def meant(body: bytes, **options: object) -> str:
        return judged(seen([(0.1, body)], ending="complete", until=1.0, **options))["end"].means  # type: ignore[arg-type]

    until_close = head(("Transfer-Encoding", ""))
    assert "without a blank line: to clients" in meant(b"data: 1\ndata: 2\ndata: 3\n")
    assert "cannot be told from a cut" in meant(b"data: 1\n\ndata: 2", answer=until_close)
    assert "cannot be told from a cut" not in meant(b"data: 1\n\ndata: 2\n", answer=until_close)
    assert "cannot be told from a cut" not in meant(b"data: 1\n\ndata: 2")


def test_events_that_begin_with_a_comment_are_a_warning_before_the_first_id() -> None:
    glued = judged(seen([(0.1, b":\ndata: 1\n\ndata: 2\n\n:\ndata: 3\n\n")]))["comments ahead"]
    assert (glued.severity, glued.seen[:1]) == ("warning", "2")
    assert "end a comment with a blank line" in glued.do
    for fine in (b":\n\ndata: 1\n\n", b"id: 1\ndata: 1\n\n:\ndata: 2\n\n", b"data: 1\n: behind\n\n"):
        assert "comments ahead" not in judged(seen([(0.1, fine)]))


def test_answer_that_ends_before_its_length_is_cut() -> None:
    observation = seen([(0.1, b"data: a\n\n")], ending="cut", answer=head(("Content-Length", "99"), ("Transfer-Encoding", "")))
    assert "before Content-Length was reached" in judged(observation)["end"].seen


@pytest.mark.parametrize(("silence", "who"), [(60.2, "nginx (proxy_read_timeout)"), (99.9, "Cloudflare"), (55.0, "Heroku"), (42.0, "")])
@pytest.mark.parametrize("ending", ["cut", "complete", "reset"])
def test_end_after_a_silence_is_an_idle_timeout_with_the_proxies_that_have_it(silence: float, who: str, ending: Ending) -> None:
    finding = judged(seen(every(0.1, numbered(3), begin=0.0), ending=ending, until=0.2 + silence))["idle cut"]
    assert finding.severity == ("warning" if ending == "complete" and not who else "problem")
    assert f"after {silence:.1f} s without a byte" in finding.seen
    assert who in finding.seen


def test_end_right_after_an_event_is_no_idle_timeout() -> None:
    assert "idle cut" not in judged(seen(every(6, numbered(3)), ending="complete"))
    assert "idle cut" not in judged(seen(every(1, numbered(3)), until=100))


def test_longest_silence_counts_from_the_head_to_the_end() -> None:
    assert longest_silence(seen([(3.0, b"a"), (4.0, b"b")], until=9.0, answer=head(after=2.0))) == 5.0
    assert longest_silence(seen([(30.0, b"a"), (31.0, b"b")], until=32.0, answer=head(after=2.0))) == 28.0
