"""Test the findings on the bytes of a stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstream import DEFAULT_MAX_BLOCK_BYTES
from gateway.doctor.anatomy import dissect
from gateway.doctor.content import judge_content
from gateway.doctor.diagnosis import Examination, diagnose
from gateway.doctor.findings import Finding
from gateway.doctor.quoting import Quote
from tests.doctor.traces import PLAIN, by_check, head, seen, severities


def judged(body: bytes) -> dict[str, Finding]:
    return by_check(judge_content(dissect(seen([(0.1, body)]).body), PLAIN))


def test_plain_events_get_no_complaints() -> None:
    findings = judged(b"retry: 3000\nid: 1\ndata: a\n\nid: 2\nevent: news\ndata: b\n\n")
    assert set(severities(findings.values()).values()) == {"ok"}
    assert findings["events"].seen == "2 blocks, 2 of them events, 54 bytes; types: message, news"
    assert findings["line ends"].seen == "LF 8"
    assert findings["retry"].seen == "3000 ms"


@pytest.mark.parametrize(
    ("body", "check", "severity", "words"),
    [
        (b"data: a\r\n\r\n", "line ends", "note", "CRLF 2"),
        (b"data: a\r\rdata: b\r\r", "line ends", "warning", "CR 4"),
        (b"data: a\r\n\r\ndata: b\n\n", "line ends", "warning", "CRLF 2, LF 2"),
        (b"\xef\xbb\xbfdata: a\n\n", "byte order mark", "warning", "begins with EF BB BF"),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", "byte order mark", "problem", "a line at byte 9"),
        (b"data: caf\xe9\n\n", "encoding", "problem", "byte 9 is not UTF-8: 64 61 74 61 3a 20 63 61 66 e9 0a 0a"),
        (
            b"id: 1\ndata: a\n\n: ping\n\ndata: b\n\n",
            "blocks without data",
            "warning",
            r"1: 1 with only a comment; the first is : ping\n\n",
        ),
        (b"id: 7\n\ndata: a\n\n", "blocks without data", "warning", "1 with id"),
        (b"retry: 5\nid: 7\n\n", "blocks without data", "warning", "1 with id and retry"),
        (b"Data: a\ndata: b\n\n", "fields", "warning", "Data (1 times)"),
        (b"id: a\0b\ndata: a\n\n", "fields", "warning", "an id at byte 0 contains NUL"),
        (b'{"a": 1}\n{"a": 2}\n', "events", "problem", "0 blocks"),
        (b":\n", "events", "note", "0 blocks"),
        (b"", "events", "note", "no byte"),
        (b"retry: 3s\ndata: a\n\n", "retry", "warning", "characters other than digits"),
        (b"retry: 0\ndata: a\n\n", "retry", "warning", "0 ms"),
        (b"retry: 86400000\ndata: a\n\n", "retry", "warning", "86400000 ms"),
        (b"data: a\n\n", "retry", "note", "none"),
        (b"data: " + b"x" * 70_000 + b"\n\n", "sizes", "warning", "longest line 70006 bytes"),
        (b"data: a\n\ndata: " + b"x" * DEFAULT_MAX_BLOCK_BYTES, "sizes", "problem", f"more than {DEFAULT_MAX_BLOCK_BYTES} bytes"),
    ],
)
def test_doctor_finds_each_fault_of_a_body(body: bytes, check: str, severity: str, words: str) -> None:
    finding = judged(body)[check]
    assert finding.severity == severity
    assert words in finding.seen
    assert finding.means
    assert finding.do


def test_character_cut_by_the_end_of_listening_is_no_bad_encoding() -> None:
    assert judged("data: a\n\ndata: 七".encode()[:-1])["encoding"].severity == "ok"


LINES = st.sampled_from(
    [b"data: a", b"data", b":", b": ping", b"id: 1", b"id: 2", b"retry: 9", b"event: x", b"DATA: a", b"\xff", b"\xef\xbb\xbfdata: b", b""]
)
BODIES = st.one_of(
    st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]))).map(lambda lines: b"".join(a + b for a, b in lines)), st.binary()
)


@given(BODIES, st.lists(st.integers(0, 200)), st.lists(st.floats(0, 10)))
def test_doctor_judges_any_bytes_cut_anywhere_without_an_exception(body: bytes, places: list[int], pauses: list[float]) -> None:
    cuts = sorted({0, *(place for place in places if place < len(body)), len(body)})
    times = [sum(pauses[:number]) for number in range(len(cuts))]
    trace = [(time, body[begin:end]) for time, begin, end in zip(times, cuts, cuts[1:], strict=False) if begin < end]
    findings = diagnose(Examination("http://example.org/", seen(trace)), PLAIN)
    assert all(finding.seen for finding in findings)
    assert all(bool(finding.means and finding.do) is (finding.severity != "ok") for finding in findings)


@given(BODIES, st.lists(st.integers(0, 200)))
def test_findings_do_not_depend_on_where_reads_cut_the_bytes(body: bytes, places: list[int]) -> None:
    cuts = sorted({0, *(place for place in places if place < len(body)), len(body)})
    pieces = [(0.1, body[begin:end]) for begin, end in itertools.pairwise(cuts)]
    whole, cut = (dissect(seen(trace).body) for trace in ([(0.1, body)], pieces))
    assert [block.event for block in whole.blocks] == [block.event for block in cut.blocks]
    assert list(judge_content(whole, PLAIN)) == list(judge_content(cut, PLAIN))


SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4, max_size=20).map("Zq9".__add__)


@given(SECRETS, BODIES)
def test_findings_hide_secrets_that_the_server_repeats(secret: str, body: bytes) -> None:
    hidden = secret.encode()
    fields = [b"id: ", hidden, b"\nevent: ", hidden, b"\n", hidden, b"\ndata: ", hidden, b"\n\n: ", hidden, b"\n\n"]
    repeated = b"".join([*fields, body, hidden, b"\xff"])
    answer = head(("Server", f"nginx {secret}"), ("Content-Length", secret), ("Cache-Control", secret))
    observation = seen([(0.1, repeated)], ending="reset", answer=answer, failure=f"lost {secret}")
    findings = diagnose(Examination("http://example.org/", observation), Quote([secret]))
    assert len(findings) > 10
    assert not any(secret in finding.seen + finding.means + finding.do for finding in findings)
