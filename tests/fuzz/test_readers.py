"""What reads parts of a request: fields, targets, topics, times. Each agrees with a model, or with the other side that reads the same."""

import contextlib
import json
import posixpath
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlsplit

from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from eventstream import content_codings
from gateway.access.credentials import cut_parameter
from gateway.http.accept import accepts_event_stream, names_event_stream
from gateway.http.headers import announce_client, end_to_end
from gateway.modes.resumable.asked import Asked
from gateway.modes.resumable.store import StreamHead
from gateway.policy.cors import Cors, is_preflight
from gateway.policy.deletion import Deletion
from gateway.policy.grants import Grant, GrantError, covers
from gateway.policy.grants import parse_topic as parse_granted
from gateway.policy.last_event_id import read_last_event_id, without_last_event_id
from gateway.policy.paths import all_readings, split_path
from gateway.policy.route_table import routes_of
from gateway.policy.target import readings, split_target, to_ascii
from gateway.policy.trusted_proxies import TrustedProxies, client_network, plain_address
from producer.topics.names import Patterns, TopicError, parse_topic
from producer.topics.selection import parse_moment
from service.request_ids import keep_or_make
from tests.fuzz.fuzzing import TARGET, fuzz

pytestmark = TARGET

PIECES = [
    "/", "//", "/.", "/..", "\\", "%2e", "%2E", "%2f", "%5c", "%25", "%252e", "%00", "%0a", "%C3%A9", "%ff", "%", "%zz", ";", ";x", ":",
    "=", ",", ".", "..", "*", ">", "%2A", "%3E", "'", '"', '\\"', " ", "\t", "-", "_", "~", "a", "A", "b", "0", "9", "?", "#", "&", "+",
    "é", "\udcff", "七", "closed", "open", "text/event-stream", "text/*", "*/*", ";q=0", ";q=0.0", ";q=1", "; q = 0", "https://",
    "http://", "a.example", "*.a.example", ".a.example", "null", "127.0.0.1", "10.0.0.1", "::1", "[::1]", "for=", "for=unknown",
    "_hidden", ":80", "bearer", "gzip", "br", "identity", "2026-01-01T00:00:00Z", "15m", "9" * 12, "d", "h", "ms", "+01:00", "T",
    "1" * 300,
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join) | st.text(max_size=10)
ROUTES = routes_of([{"path": path, "upstream": "http://127.0.0.1:1"} for path in ("/", "/open", "/closed", "/closed/b")])
PROXIES = TrustedProxies.parse("10.0.0.0/8, ::1")
CORS = Cors(origins=("https://a.example", "https://*.a.example"), credentials=True)


def check_targets(text: str) -> None:
    authority, target = split_target(text)
    assert target.startswith("/") or not authority
    path = "/" + target.partition("?")[0]
    taken = {path, *readings(path)}
    for decoded in (path, unquote(path, "latin-1")):
        merged = posixpath.normpath(decoded.replace("\\", "/"))
        if "%" not in decoded and ";" not in decoded and not merged.startswith("//"):
            assert any(each.rstrip("/") == merged.rstrip("/") for each in taken), "a reading is missing"
    segments = split_path(path)
    if segments is not None:
        assert not {".", ".."}.intersection(segments)
        assert "/".join(["", *segments]) == unquote_to_bytes(path).decode()
        assert all(ROUTES.find(guise) is ROUTES.find(path) for guise in all_readings(path) if "%" not in path and ";" not in path)
    to_ascii(path.encode("utf-8", "surrogateescape")).decode("ascii")
    kept, values = cut_parameter(target, "a")
    _, _, query = target.partition("?")
    assert values == [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "a"]
    assert not cut_parameter(kept, "a")[1]
    assert read_last_event_id(CIMultiDict(), without_last_event_id(target)) == ""


def check_topics(granted: str, asked: str) -> None:
    """Check that grants mean what the producer understands: no name is another one there."""
    try:
        name: str | None = parse_topic(asked)
    except TopicError:
        name = None
    topic = parse_granted(asked)
    if name is not None and topic is not None:
        assert ".".join(topic) == name
    with contextlib.suppress(TopicError):
        pattern = Patterns.parse([granted])
        allowed = parse_granted(granted)
        if allowed is not None:
            assert (".".join(allowed),) == pattern.texts
            if name is not None and topic is not None:
                assert covers(allowed, topic) == (pattern.matcher().fullmatch(name) is not None)
    with contextlib.suppress(GrantError):
        grant = Grant.parse([granted])
        assert not grant.allows(f"/topics/{asked}/events") or "/" in granted or (topic is not None and covers(grant.topics[0], topic))


def check_fields(first: str, second: str) -> None:
    names = ("Accept", "Origin", "Forwarded", "X-Forwarded-For", "Connection", "Last-Event-ID", "Access-Control-Request-Method", "Via")
    fields = CIMultiDict([(name, value) for name in names for value in (first, second)])
    headers = CIMultiDictProxy(fields)
    assert not names_event_stream(headers) or accepts_event_stream(headers)
    origin = headers["Origin"]
    assert not CORS.allows(origin) or origin == "https://a.example" or (urlsplit(origin).hostname or "").endswith(".a.example")
    assert CORS.answer_fields(origin).get("Access-Control-Allow-Origin", "") in ("", origin)
    if is_preflight("OPTIONS", headers):
        allowed = CORS.preflight_fields(headers, ())
        assert "Access-Control-Allow-Methods" not in allowed or CORS.allows(origin)
    for peer in ("10.0.0.1", "::1"):
        client = PROXIES.find_client(peer, headers)
        assert plain_address(client) == client
        assert client_network(client)
        assert client == peer or any(client in text.lower() for text in (first, second))
    passed = end_to_end(headers)
    assert "Connection" not in passed
    announce_client(passed, client="::1", scheme="http", host=first)
    assert passed["Forwarded"].endswith(";proto=http")
    assert all(coding.strip() == coding.lower() for coding in content_codings(first))
    assert keep_or_make(first).isascii()
    deletion = Deletion.done("http://a/b", {"Cache-Group-Invalidation": first})
    deletion.covers("http://a/b/" + second, {"Cache-Groups": second})


def check_questions(text: str, other: str, digest: bytes) -> None:
    asked = Asked("name", StreamHead("", text, "POST", other, digest, digest, text + other, (), 0.0, other, text), other)
    assert json.loads(asked.encode())
    assert Asked.decode(asked.encode()) == asked


def check_moments(text: str, now_ms: int) -> None:
    try:
        moment = parse_moment(text, now_ms)
    except (ValueError, OverflowError):
        return
    assert moment >= 0
    with contextlib.suppress(ValueError):
        told = datetime.fromisoformat(text)
        assert moment == max(0, (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000 // 1)


def test_targets() -> None:
    fuzz(check_targets, TEXTS.map(lambda text: "/" + text) | TEXTS)


def test_topics() -> None:
    fuzz(check_topics, TEXTS, TEXTS)


def test_fields() -> None:
    fuzz(check_fields, TEXTS, TEXTS)


def test_questions() -> None:
    fuzz(check_questions, TEXTS, TEXTS, st.binary(max_size=32))


def test_moments() -> None:
    fuzz(check_moments, TEXTS | st.datetimes().map(datetime.isoformat), st.integers(0, 2**45))
