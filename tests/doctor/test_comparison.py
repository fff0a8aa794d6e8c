"""Test the comparison of two paths to the same stream, byte by byte."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.doctor.anatomy import dissect
from gateway.doctor.comparison import Comparison, Path, compare, first_difference, show_difference
from gateway.doctor.observation import Observation
from gateway.doctor.quoting import Quote
from tests.doctor.traces import ASKED, PLAIN, by_check, every, head, numbered, seen, severities

EVENTS = every(0.2, numbered(20))


def path(observation: Observation) -> Path:
    return Path(observation, dissect(observation.body))


def compared(direct: Observation, through: Observation, quote: Quote = PLAIN) -> Comparison:
    return compare(path(direct), path(through), quote)


def each(change: Callable[[bytes], bytes], trace: list[tuple[float, bytes]] = EVENTS) -> list[tuple[float, bytes]]:
    return [(seconds + 0.005, change(data)) for seconds, data in trace]


def test_path_that_changes_nothing_gets_no_complaints() -> None:
    comparison = compared(seen(EVENTS), seen(each(bytes)))
    assert severities(comparison.findings) == {"bytes": "ok", "comments": "ok", "delay": "ok"}
    assert by_check(comparison.findings)["delay"].seen == "median 5 ms, 95th percentile 5 ms, maximum 5 ms"
    assert comparison.alterations == ()


def test_paths_that_begin_and_end_at_different_events_are_aligned() -> None:
    comparison = compared(seen(EVENTS[:15]), seen(EVENTS[4:]))
    assert (
        by_check(comparison.findings)["bytes"].seen
        == "11 blocks arrived on both paths, 11 of them unchanged (the paths began 4 blocks apart)"
    )
    assert by_check(comparison.findings)["bytes"].severity == "ok"


def test_paths_without_ids_are_aligned_by_their_events() -> None:
    plain = each(lambda data: data.split(b"\n", 1)[1].replace(b"tick", data[:6].strip()))
    comparison = compared(seen(plain[:15]), seen(plain[4:]))
    assert by_check(comparison.findings)["bytes"].seen.startswith("11 blocks arrived on both paths, 11 of them unchanged")


def test_comparison_finds_missing_and_inserted_blocks() -> None:
    through = [*EVENTS[:5], *EVENTS[7:10], (1.9, b"data: advertisement\n\n"), *EVENTS[10:]]
    comparison = compared(seen(EVENTS), seen(through))
    finding = by_check(comparison.findings)["bytes"]
    assert finding.severity == "problem"
    assert finding.seen.endswith("18 of them unchanged; 2 missing, 1 inserted")
    assert [alteration.what.partition(": ")[2] for alteration in comparison.alterations] == [
        r"id: 6\ndata: tick\n\n",
        r"id: 7\ndata: tick\n\n",
        r"data: advertisement\n\n",
    ]


def test_altered_block_is_shown_with_its_first_different_byte() -> None:
    comparison = compared(seen(EVENTS), seen(each(lambda data: data.replace(b"id: 9\ndata: tick", b"id: 9\ndata: tock"))))
    [alteration] = comparison.alterations
    assert alteration.what == "block at byte 144 of the direct path, 144 of the other: without data: tick, with data: tock"
    difference = alteration.difference
    assert difference is not None
    assert difference.offset == 13
    assert (difference.direct_text, difference.through_text) == (r"d: 9\ndata: tick\n\n", r"d: 9\ndata: tock\n\n")
    assert difference.through_hex == "64 3a 20 39 0a 64 61 74 61 3a 20 74 6f 63 6b 0a 0a"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.replace(b"\n", b"\r\n"), "different line ends"),
        (lambda data: data.replace(b"data: tick", b"data:tick"), "without data: tick, with data:tick"),
        (lambda data: b"id: x" + data[4:], "with id: x"),
    ],
)
def test_stream_with_every_block_altered_is_still_recognized(change: Callable[[bytes], bytes], words: str) -> None:
    comparison = compared(seen(EVENTS), seen(each(change)))
    finding = by_check(comparison.findings)["bytes"]
    assert finding.severity == "problem"
    assert finding.seen.endswith("20 blocks arrived on both paths, 0 of them unchanged; 20 altered")
    assert words in comparison.alterations[0].what


def test_comments_are_counted_but_are_no_alteration() -> None:
    beaten = [(seconds, b":\n" + data) for seconds, data in EVENTS]
    assert severities(compared(seen(EVENTS), seen(beaten)).findings) == {"bytes": "ok", "comments": "ok", "delay": "ok"}
    assert severities(compared(seen(beaten), seen(EVENTS)).findings)["comments"] == "warning"


def test_different_retry_is_a_note_and_no_alteration() -> None:
    told = [(0.02, b"retry: 3000\n" + EVENTS[0][1]), *EVENTS[1:]]
    comparison = compared(seen(told), seen(EVENTS))
    findings = by_check(comparison.findings)
    assert findings["bytes"].severity == "ok"
    assert (findings["retry through"].severity, findings["retry through"].seen) == ("note", "3000 ms on the direct path, none through")


def test_byte_order_mark_inserted_on_the_way_is_a_warning() -> None:
    marked = [(0.02, b"\xef\xbb\xbf" + EVENTS[0][1]), *EVENTS[1:]]
    assert severities(compared(seen(EVENTS), seen(marked)).findings)["byte order mark through"] == "warning"
    assert severities(compared(seen(marked), seen(EVENTS)).findings)["byte order mark through"] == "ok"


def test_different_streams_have_nothing_in_common() -> None:
    comparison = compared(seen(EVENTS), seen([(0.1, b"retry: 1\n\n"), (0.2, b"event: other\ndata: {}\n\n")]))
    assert by_check(comparison.findings)["bytes"].seen == "20 blocks on the direct path, 2 through, none in common"
    assert severities(compared(seen([]), seen([])).findings)["bytes"] == "note"


def test_heads_are_compared_field_by_field_and_byte_by_byte() -> None:
    direct = head(("X-Accel-Buffering", "no"), ("X-Request-Id", "a"))
    through = head(
        ("Content-Type", "text/plain"), ("Cache-Control", "public"), ("Content-Encoding", "gzip"), ("Server", "nginx"), version=(1, 0)
    )
    comparison = compared(seen(EVENTS, answer=direct), seen(EVENTS, answer=through))
    said = {finding.seen: finding.severity for finding in comparison.findings}
    assert said["content-type: text/event-stream became text/plain"] == "problem"
    assert said["content-encoding: nothing became gzip"] == "problem"
    assert said["cache-control: no-cache became public"] == "warning"
    assert said["x-accel-buffering: no became nothing"] == "note"
    assert said["HTTP/1.1 became HTTP/1.0"] == "note"
    assert said["x-request-id: a became nothing; server: nothing became nginx"] == "ok"
    assert comparison.alterations[0].what == "head"
    assert comparison.alterations[0].difference is not None
    assert comparison.alterations[0].difference.offset == len("HTTP/1.")


def test_path_that_buffers_blocks_is_reported_with_its_delay_and_its_proxy() -> None:
    body = b"".join(data for _, data in EVENTS)
    through = seen([(2.0, body[:160]), (4.0, body[160:])], answer=head(("Server", "nginx")))
    findings = by_check(compared(seen(EVENTS), through).findings)
    assert findings["buffering"].severity == "problem"
    assert findings["buffering"].seen == "20 clumps on the direct path, 2 through"
    assert findings["delay"].severity == "warning"
    assert "proxy_buffering off" in findings["delay"].do


def test_delay_counts_only_blocks_that_arrived_while_both_paths_were_open() -> None:
    replayed = [(0.02, b"".join(numbered(50))), *every(0.2, numbered(10, first=51), begin=1.0)]
    late = [(0.9, b"".join(numbered(50))), *((seconds + 0.01, data) for seconds, data in replayed[1:])]
    comparison = compared(seen(replayed), seen(late, answer=head(after=0.8)))
    assert len(comparison.delays) == 10
    assert by_check(comparison.findings)["delay"].seen.startswith("median 10 ms")


def test_paths_that_end_differently_are_reported() -> None:
    cut = compared(seen(EVENTS, ending="cut"), seen(EVENTS, ending="complete"))
    assert by_check(cut.findings)["ends"].severity == "problem"
    assert by_check(compared(seen(EVENTS, ending="cut"), seen(EVENTS, ending="reset")).findings)["ends"].severity == "note"
    assert "ends" not in by_check(compared(seen(EVENTS, ending="cut"), seen(EVENTS, ending="cut")).findings)


def test_path_without_an_answer_cannot_be_compared() -> None:
    comparison = compared(seen(EVENTS), Observation(ASKED, ended_seconds=ASKED + 5))
    assert [finding.seen for finding in comparison.findings] == ["the path through got no answer"]


@given(st.binary(max_size=9000), st.binary(max_size=20), st.binary(max_size=20))
def test_first_difference_is_the_offset_of_the_first_different_byte(common: bytes, one: bytes, other: bytes) -> None:
    direct, through = common + b"a" + one, common + b"b" + other
    assert first_difference(direct, through) == len(common)
    assert first_difference(direct, direct + other) is None
    assert first_difference(common, common + one) is None


def test_differences_show_no_part_of_a_secret() -> None:
    difference = show_difference(b"key: topsecretvalue, a", b"key: topsecretvalue, b", Quote(["topsecretvalue"]))
    assert difference.direct_text == "*" * 10 + ", a"
    assert b"value".hex(" ") not in difference.direct_hex + difference.through_hex


BLOCKS = st.lists(st.sampled_from([b"data: a\n\n", b"id: 1\ndata: b\n\n", b":\n\n", b"id: 2\n\n", b"data: c\r\n\r\n", b"x"]), max_size=12)


@given(BLOCKS, BLOCKS)
def test_comparison_accepts_any_two_streams(one: list[bytes], other: list[bytes]) -> None:
    comparison = compared(seen(every(0.1, one)), seen(every(0.1, other)))
    assert comparison.findings
    same = compared(seen(every(0.1, one)), seen(every(0.1, one)))
    assert all(finding.severity in ("ok", "note") for finding in same.findings)
