"""Silence, heartbeats, and how a stream ended."""

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
def test_heartbeat_is_described_with_form_and_interval(beat: bytes, form: str) -> None:
    trace = [(0.1, b"data: a\n\n"), *((15.0 * number, beat) for number in range(1, 5)), (65.0, b"data: b\n\n")]
    finding = judged(seen(trace))["heartbeat"]
    assert (finding.severity, finding.seen) == ("ok", f"4, 15.0 s apart: {form}; longest silence 15.0 s")


def test_heartbeat_that_waits_for_its_block_still_counts() -> None:
    assert judged(seen([(0.1, b"data: a\n\n"), (10, b":\n"), (20, b":\n")], until=21))["heartbeat"].seen.startswith("2, 10.0 s apart")


def test_comment_that_comes_with_its_event_is_no_heartbeat() -> None:
    finding = judged(seen([(0.1, b": hello\ndata: a\n\n")], until=20))["heartbeat"]
    assert (finding.severity, finding.seen) == ("warning", "none; longest silence 19.9 s")


def test_silence_without_heartbeat_is_a_warning_and_a_short_one_is_not() -> None:
    assert judged(seen([(0.1, b"data: a\n\n")], until=16))["heartbeat"].severity == "warning"
    assert judged(seen([(0.1, b"data: a\n\n")], until=5))["heartbeat"].severity == "ok"
    assert judged(seen([], until=5))["heartbeat"].severity == "note"
    assert judged(seen([], until=50))["heartbeat"].severity == "warning"


def test_heartbeats_that_are_rarer_than_proxies_bear_are_a_warning() -> None:
    assert judged(seen(every(59, [b":\n"] * 3)))["heartbeat"].severity == "warning"


@pytest.mark.parametrize(
    ("ending", "rest", "severity", "words"),
    [
        ("open", b"", "ok", "still open after 1.0 s"),
        ("complete", b"", "ok", "ended in order after 1.0 s, behind a whole block"),
        ("complete", b":\n", "ok", "behind a comment line"),
        ("complete", b"data: hal", "problem", "inside a block: data: hal"),
        ("complete", b"retry: 1000\n", "ok", "behind a line that says when to come back"),
        ("complete", b"data: [DONE]\n", "problem", "inside a block: data: [DONE]"),
        ("cut", b"", "problem", "closed after 1.0 s without the last chunk"),
        ("cut", b"data: hal", "problem", "without the last chunk, 9 bytes into a block"),
        ("reset", b"", "problem", "reset after 1.0 s: connection reset by peer"),
    ],
)
def test_end_is_described(ending: Ending, rest: bytes, severity: str, words: str) -> None:
    observation = seen([(0.1, numbered(1)[0] + rest)], ending=ending, until=1.0, failure="connection reset by peer")
    finding = judged(observation)["end"]
    assert finding.severity == severity
    assert words in finding.seen


def test_end_inside_a_block_says_what_it_means() -> None:
    def meant(body: bytes, **options: object) -> str:
        return judged(seen([(0.1, body)], ending="complete", until=1.0, **options))["end"].means  # type: ignore[arg-type]

    until_close = head(("Transfer-Encoding", ""))
    assert "no blank line behind any" in meant(b"data: 1\ndata: 2\ndata: 3\n")
    assert "cannot be told from a cut" in meant(b"data: 1\n\ndata: 2", answer=until_close)
    assert "cannot be told from a cut" not in meant(b"data: 1\n\ndata: 2\n", answer=until_close)
    assert "cannot be told from a cut" not in meant(b"data: 1\n\ndata: 2")


def test_comment_that_a_client_takes_its_event_for_is_named() -> None:
    glued = judged(seen([(0.1, b":\ndata: 1\n\ndata: 2\n\n:\ndata: 3\n\n")]))["comments ahead"]
    assert (glued.severity, glued.seen[:1]) == ("warning", "2")
    assert "with a blank line" in glued.do
    for fine in (b":\n\ndata: 1\n\n", b"id: 1\ndata: 1\n\n:\ndata: 2\n\n", b"data: 1\n: behind\n\n"):
        assert "comments ahead" not in judged(seen([(0.1, fine)]))


def test_answer_that_ends_before_its_length_is_cut() -> None:
    observation = seen([(0.1, b"data: a\n\n")], ending="cut", answer=head(("Content-Length", "99"), ("Transfer-Encoding", "")))
    assert "before Content-Length was reached" in judged(observation)["end"].seen


@pytest.mark.parametrize(("silence", "who"), [(60.2, "nginx (proxy_read_timeout)"), (99.9, "Cloudflare"), (55.0, "Heroku"), (42.0, "")])
@pytest.mark.parametrize("ending", ["cut", "complete", "reset"])
def test_end_after_a_silence_is_an_idle_timeout_and_names_whose_it_may_be(silence: float, who: str, ending: Ending) -> None:
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
