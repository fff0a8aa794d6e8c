"""Test how the doctor tells single blocks from buffered ones."""

import pytest

from gateway.doctor.anatomy import dissect
from gateway.doctor.findings import Finding
from gateway.doctor.observation import Head, Observation
from gateway.doctor.rhythm import judge_rhythm, measure_rhythm, near_size
from gateway.doctor.suspects import find_suspects
from tests.doctor.traces import PLAIN, every, head, numbered, seen

BLOCK = b"data: " + b"x" * 192 + b"\n\n"


def judged(observation: Observation, answer: Head | None = None) -> Finding:
    return judge_rhythm(observation, dissect(observation.body), answer or head(), PLAIN)


def in_pieces(body: bytes, size: int, seconds: float, begin: float = 0.02) -> list[tuple[float, bytes]]:
    """Return the body as a buffer of `size` bytes would send it."""
    return [(begin + number * seconds, body[at : at + size]) for number, at in enumerate(range(0, len(body), size))]


def test_blocks_that_arrive_one_by_one_get_no_complaints() -> None:
    finding = judged(seen(every(0.1, numbered(20))))
    assert (finding.severity, finding.seen) == ("ok", "20 blocks arrived in 20 clumps: one by one, median pause 0.1 s")


def test_replay_at_the_beginning_is_no_clump() -> None:
    trace = [(0.02, b"".join(numbered(500))), *every(0.2, numbered(10, first=501), begin=0.3)]
    assert judged(seen(trace)).severity == "ok"


def test_buffer_that_cuts_blocks_is_a_problem_with_its_delay_size_and_suspect() -> None:
    finding = judged(seen(in_pieces(BLOCK * 90, 4096, 2.0)), head(("Server", "nginx/1.22.1")))
    assert finding.severity == "problem"
    assert "4096 bytes (a buffer of 4096?)" in finding.seen
    assert "2.0 s apart" in finding.seen
    assert "nginx (Server: nginx/1.22.1): proxy_buffering off;" in finding.do


def test_event_that_arrives_in_halves_is_a_problem() -> None:
    assert judged(seen([(0.02, BLOCK[:50]), (2.0, BLOCK[50:])], ending="complete")).severity == "problem"


def test_block_that_the_network_splits_for_a_moment_is_no_problem() -> None:
    trace = [piece for number in range(10) for piece in ((number * 0.3, BLOCK[:99]), (number * 0.3 + 0.08, BLOCK[99:]))]
    assert judged(seen(trace)).severity == "ok"


def test_response_that_arrives_late_and_all_at_once_does_not_stream() -> None:
    observation = seen([(6.0, b"".join(numbered(30)))], ending="complete", until=6.01)
    finding = judged(observation, head(("Content-Length", "999")))
    assert finding.severity == "problem"
    assert "all 30 blocks arrived at once, after 6.0 s" in finding.seen
    assert "Content-Length: 999" in finding.do


def test_short_response_that_arrives_at_once_gets_no_complaints() -> None:
    assert judged(seen([(0.1, b"".join(numbered(30)))], ending="complete", until=0.11)).severity == "ok"


def test_clumps_of_complete_blocks_are_a_warning_because_the_source_may_batch() -> None:
    trace = [(second, b"".join(numbered(5, first=5 * second))) for second in range(1, 8)]
    finding = judged(seen(trace))
    assert finding.severity == "warning"
    assert "clumps of about 5 blocks" in finding.seen
    assert "up to 1.0 s" in finding.means


def test_heartbeat_ahead_of_its_block_is_no_half_block() -> None:
    trace = [(0.1, b"data: 1\n\n"), (2.0, b":\n"), (4.0, b":\n"), (5.0, b"data: 2\n\n"), (6.0, b":\n"), (7.0, b"data: 3\n\n")]
    assert judged(seen(trace)).severity == "ok"


def test_retry_ahead_of_the_first_event_is_no_half_block() -> None:
    assert judged(seen([(0.1, b"retry: 3000\n")], until=30)).severity == "note"
    assert judged(seen([(0.1, b"retry: 3000\n"), (9.0, b"data: 1\n\n")])).severity == "note"
    assert judged(seen([(0.1, b"retry: 30")], until=30)).severity == "problem"


@pytest.mark.parametrize("trace", [[], [(0.1, b"data: 1\n\n")], [(0.1, b":\n")]])
def test_doctor_advises_to_listen_longer_after_too_few_blocks(trace: list[tuple[float, bytes]]) -> None:
    finding = judged(seen(trace))
    assert finding.severity == "note"
    assert "--seconds" in finding.do


def test_rhythm_has_the_numbers_of_the_trace() -> None:
    observation = seen([(second, b"".join(numbered(4))) for second in range(1, 6)])
    rhythm = measure_rhythm(observation, dissect(observation.body))
    assert (rhythm.kind, rhythm.clumps, rhythm.blocks_per_clump, rhythm.pause_seconds) == ("clumps", 5, 4, 1.0)
    assert rhythm.clump_bytes == 4 * len(numbered(1)[0])
    assert rhythm.buffered


@pytest.mark.parametrize(
    ("size", "words"), [(4096, "4096 bytes (a buffer of 4096?)"), (8100, "8100 bytes (a buffer of 8192?)"), (600, "600 bytes")]
)
def test_near_size_names_common_buffer_sizes(size: int, words: str) -> None:
    assert near_size(size) == words


@pytest.mark.parametrize(
    ("field", "name"),
    [
        (("Server", "openresty/1.25"), "OpenResty (nginx)"),
        (("Server", "cloudflare"), "Cloudflare"),
        (("CF-Ray", "8a1b2c3d4e5f-FRA"), "Cloudflare"),
        (("Via", "1.1 varnish (Varnish/7.4)"), "Varnish"),
        (("Via", "1.1 abc.cloudfront.net (CloudFront)"), "CloudFront"),
        (("Via", "1.1 Caddy"), "Caddy"),
        (("Via", "1.1 google"), "Google's load balancer"),
        (("X-Cache", "MISS"), "a cache"),
        (("X-Accel-Buffering", "yes"), "nginx"),
        (("ETag", 'W/"1f"'), "a layer that computes the ETag from the whole body"),
        (("Content-Encoding", "gzip"), "compression"),
        (("X-Envoy-Upstream-Service-Time", "3"), "Envoy"),
    ],
)
def test_header_fields_identify_the_proxy(field: tuple[str, str], name: str) -> None:
    [suspect] = find_suspects(head(field), PLAIN)
    assert suspect.name == name
    assert field[1].lower() in suspect.evidence.lower()
    assert suspect.remedy


def test_doctor_suspects_no_proxy_without_a_trace_and_clears_nginx_by_x_accel_buffering_no() -> None:
    trace = in_pieces(BLOCK * 90, 4096, 2.0)
    assert "--through" in judged(seen(trace)).do
    assert "probably not nginx" in judged(seen(trace), head(("X-Accel-Buffering", "no"))).do
