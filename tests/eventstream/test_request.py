"""The request of an event source, and its judgement of the answer: headers, bodies, statuses, content types, redirects."""

import asyncio
import email.utils
import re
import time
from pathlib import Path

import aiohttp
import pytest

from eventstream import ConnectionFailed
from eventstream.client import EventSource
from eventstream.request import StreamRequest, Unavailable, describe
from tests.eventstream.following import NO_CONTENT, answer, following, patient, stream
from tests.kit.upstream import Disconnect, ScriptedUpstream, Silence
from tests.kit.waiting import until


def typed(content_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: a\n\n\r\n".encode()


async def test_headers_are_those_of_the_standard() -> None:
    async with following([NO_CONTENT]) as (upstream, source):
        assert await anext(source, None) is None
        sent = {name.lower(): value for name, value in upstream.requests[0].headers}
        assert len(sent) == len(upstream.requests[0].headers)
        assert sent.pop("user-agent")
        assert sent == {
            "host": f"127.0.0.1:{upstream.port}",
            "accept": "text/event-stream",
            "cache-control": "no-cache",
            "accept-encoding": "identity",
            "connection": "close",
        }
        assert upstream.requests[0].method == "GET"


async def test_headers_of_the_caller_are_added_and_replace_those_of_the_same_name() -> None:
    headers = {"accept": "text/event-stream, */*", "CACHE-CONTROL": "no-store", "X-Own": "ü"}
    async with following([NO_CONTENT], headers=headers) as (upstream, source):
        assert await anext(source, None) is None
        asked = upstream.requests[0]
        assert asked.header("Accept") == "text/event-stream, */*"
        assert asked.header("Cache-Control") == "no-store"
        assert (asked.header("X-Own") or "").encode("latin-1").decode() == "ü"


@pytest.mark.parametrize(
    ("body", "sent"), [("七夕", "七夕".encode()), (b"\xff\0", b"\xff\0"), (b"", b""), (b"x" * 3_000_000, b"x" * 3_000_000)]
)
async def test_method_and_body_are_sent_again_on_each_connection(body: bytes | str, sent: bytes) -> None:
    async with following([stream(b"data: a\n\n"), Disconnect()], [NO_CONTENT], method="post", body=body) as (upstream, source):
        assert [event.data async for event in source] == ["a"]
        assert [(asked.method, asked.body, asked.header("Content-Type")) for asked in upstream.requests] == [
            ("POST", sent, "text/plain")
        ] * 2


async def test_content_type_of_the_caller_is_kept() -> None:
    headers = {"content-type": "application/json"}
    async with following([NO_CONTENT], method="PUT", body='{"a": 1}', headers=headers) as (upstream, source):
        assert await anext(source, None) is None
        assert upstream.requests[0].header("Content-Type") == "application/json"


async def test_credentials_in_the_url_are_sent_and_never_shown() -> None:
    async with ScriptedUpstream([answer(404)]) as upstream:
        url = f"http://ann:secret@127.0.0.1:{upstream.port}/"
        async with EventSource(url) as source:
            with pytest.raises(ConnectionFailed) as failed:
                await anext(source)
            assert upstream.requests[0].header("Authorization") == "Basic YW5uOnNlY3JldA=="
            assert failed.value.url == upstream.url + "/"
            assert "secret" not in f"{failed.value} {source!r} {source.last_error}"


@pytest.mark.parametrize(
    "content_type", ["text/event-stream", "text/event-stream;charset=utf-8", "Text/Event-Stream ; Charset=UTF-8", "text/event-stream;"]
)
async def test_content_type_may_have_parameters_and_capitals(content_type: str) -> None:
    async with following([typed(content_type), Silence()]) as (_, source):
        assert (await anext(source)).data == "a"


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/event-streams", "text/plain, text/event-stream", "", "application/json; x=text/event-stream"]
)
async def test_another_content_type_fails_the_connection(content_type: str) -> None:
    async with following([typed(content_type), Silence()]) as (upstream, source):
        with pytest.raises(ConnectionFailed) as failed:
            await anext(source)
        assert (failed.value.status, failed.value.content_type, failed.value.url) == (200, content_type, upstream.url)
        assert str(failed.value) == f"{upstream.url}: content type must be 'text/event-stream', got {content_type!r}"
        assert (source.state, source.last_error) == ("closed", str(failed.value))
        await upstream.requests[0].left.wait()


@pytest.mark.parametrize("status", [201, 202, 205, 206, 300, 304, 400, 401, 403, 404, 408, 410])
async def test_another_status_fails_the_connection(status: int) -> None:
    async with following([answer(status, "Content-Type: text/event-stream", "Location: /elsewhere")]) as (upstream, source):
        with pytest.raises(ConnectionFailed, match=f"status must be 200 for an event stream, got {status}") as failed:
            await anext(source)
        assert failed.value.status == status
        assert [event async for event in source] == []
        assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 599])
async def test_status_of_a_failing_server_is_retried(status: int) -> None:
    async with following([answer(status)], [answer(status)], [stream(b"data: a\n\n"), Silence()]) as (upstream, source):
        assert (await anext(source)).data == "a"
        assert len(upstream.requests) == 3


def coded(*fields: bytes) -> bytes:
    """Return the head of an event stream with these `Content-Encoding` fields."""
    encodings = b"".join(b"Content-Encoding: %s\r\n" % field for field in fields)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + encodings + b"Content-Length: 9\r\n\r\n"


@pytest.mark.parametrize("fields", [[b"none"], [b"None"], [b"identity"], [b"identity, none"], [b"none", b"identity"], [b""]])
async def test_content_encoding_that_means_none_is_none(fields: list[bytes]) -> None:
    async with following([coded(*fields), b"data: a\n\n"], [NO_CONTENT]) as (_, source):
        assert [event.data async for event in source] == ["a"]


@pytest.mark.parametrize("fields", [[b"snappy"], [b"gzip, br"], [b"gzip", b"gzip"], [b"aes128gcm"]])
async def test_content_encoding_that_cannot_be_decoded_fails_the_connection(fields: list[bytes]) -> None:
    said = b", ".join(fields).decode()
    reason = f"content encoding must be one of 'identity', 'gzip', 'x-gzip', 'deflate', 'br', 'zstd', got '{said}'"
    async with following([coded(*fields), b"data: a\n\n"]) as (_, source):
        with pytest.raises(ConnectionFailed, match=reason):
            await anext(source)


async def unavailable(upstream: ScriptedUpstream) -> Unavailable:
    request = StreamRequest.build(upstream.url, "GET", None, None)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable) as raised:
            await request.open(session, "", aiohttp.ClientTimeout())
    return raised.value


async def test_session_without_addresses_that_cannot_connect_is_unavailable(tmp_path: Path) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "missing"))) as session:
        with pytest.raises(Unavailable):
            await StreamRequest.build("http://service/", "GET", None, None).open(session, "", aiohttp.ClientTimeout())


@pytest.mark.parametrize(
    ("status", "value", "seconds"),
    [
        (503, "7", 7),
        (429, "0", 0),
        (503, "9" * 5000, 86_400),
        (500, "7", 0),
        (503, "soon", 0),
        (503, "-1", 0),
        (503, "1.5", 0),
        (503, "Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (503, "Wed, 21 Oct 9015 07:28:00 GMT", 86_400),
        (503, "Wed, 21 Oct 9015 07:28:00 -0000", 86_400),
    ],
)
async def test_retry_after_is_read_on_503_and_429(status: int, value: str, seconds: float) -> None:
    async with ScriptedUpstream([answer(status, f"Retry-After: {value}")]) as upstream:
        assert (await unavailable(upstream)).retry_after_seconds == seconds


async def test_retry_after_may_be_a_date() -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    async with ScriptedUpstream([answer(429, f"Retry-After: {date}")]) as upstream:
        assert 50 < (await unavailable(upstream)).retry_after_seconds <= 100


async def test_longer_retry_after_delays_the_next_attempt() -> None:
    async with following([answer(503, "Retry-After: 1")], [NO_CONTENT]) as (_, source):
        begun = time.monotonic()
        assert await anext(source, None) is None
        assert time.monotonic() - begun >= 1


async def test_shorter_retry_after_does_not_shorten_the_delay() -> None:
    async with following([answer(503, "Retry-After: 0")], reconnection=patient()) as (upstream, source):
        reading = asyncio.ensure_future(anext(source, None))
        await until(lambda: source.last_error)
        done, _ = await asyncio.wait({reading}, timeout=0.2)
        assert not done
        assert source.last_error == f"{upstream.url}: the server answered 503"
        assert len(upstream.requests) == 1
        await source.close()
        await reading


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_followed_with_all_headers_and_each_connection_starts_at_the_first_url(status: int) -> None:
    redirect = [answer(status, "Location: ../there?x=%2F")]
    scripts = [redirect, [stream(b"id: 1\ndata: a\n\n"), Disconnect()], redirect, [NO_CONTENT]]
    async with (
        ScriptedUpstream(*scripts) as upstream,
        EventSource(upstream.url + "/a/b", headers={"Authorization": "x", "Cookie": "y=z"}) as source,
    ):
        assert (await anext(source)).data == "a"
        source.restart()
        assert await anext(source, None) is None
        assert [asked.target for asked in upstream.requests] == ["/a/b", "/there?x=%2F"] * 2
        assert [asked.header("Last-Event-ID") for asked in upstream.requests] == [None, None, "1", "1"]
        for asked in upstream.requests:
            sent = [asked.header(name) for name in ("Accept", "Authorization", "Cookie")]
            assert sent == ["text/event-stream", "x", "y=z"]


@pytest.mark.parametrize(("location", "target"), [("?x", "/a/b?x"), ("c", "/a/c"), ("c?", "/a/c?"), ("/d??", "/d??")])
async def test_redirect_is_resolved_against_a_url_that_ends_in_a_question_mark(location: str, target: str) -> None:
    async with (
        ScriptedUpstream([answer(302, f"Location: {location}")], [NO_CONTENT]) as upstream,
        EventSource(upstream.url + "/a/b?") as source,
    ):
        assert await anext(source, None) is None
        assert [asked.target for asked in upstream.requests] == ["/a/b?", target]


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("c", "/%2E%2e/a%20HTTP%2F1.1%0d%0aX:%3Fy%23/c"),
        ("./c?d=%20", "/%2E%2e/a%20HTTP%2F1.1%0d%0aX:%3Fy%23/c?d=%20"),
        ("../c", "/%2E%2e/c"),
        ("../../../c#d", "/c"),
        ("?d", "/%2E%2e/a%20HTTP%2F1.1%0d%0aX:%3Fy%23/b%20?d"),
        ("c d", "/%2E%2e/a%20HTTP%2F1.1%0d%0aX:%3Fy%23/c%20d"),
    ],
)
async def test_redirect_keeps_the_percent_encoding_of_the_path_it_is_resolved_against(location: str, target: str) -> None:
    asked = "/%2E%2e/a%20HTTP%2F1.1%0d%0aX:%3Fy%23/b%20"
    async with (
        ScriptedUpstream([answer(302, f"Location: {location}")], [NO_CONTENT]) as upstream,
        EventSource(upstream.url + asked) as source,
    ):
        assert await anext(source, None) is None
        assert [each.target for each in upstream.requests] == [asked, target]


@pytest.mark.parametrize(
    ("status", "method", "follows_with"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
async def test_redirect_keeps_method_and_body_or_switches_to_get_as_fetch_does(status: int, method: str, follows_with: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Language": "en"}
    async with following([answer(status, "Location: /there")], [NO_CONTENT], method=method, body="{}", headers=headers) as (
        upstream,
        source,
    ):
        assert await anext(source, None) is None
        asked = upstream.requests[1]
        kept = follows_with != "GET"
        assert (asked.method, asked.body) == (follows_with, b"{}" if kept else b"")
        assert asked.header("Content-Type") == ("application/json" if kept else None)
        assert asked.header("Content-Language") == ("en" if kept else None)


async def test_redirect_to_another_origin_gets_no_header_that_may_be_secret() -> None:
    headers = {"authorization": "x", "Cookie": "y=z", "X-Own": "1", "Host": "first.example", "accept-language": "en"}
    async with ScriptedUpstream([NO_CONTENT]) as other:
        async with following([answer(302, f"Location: {other.url}/there")], headers=headers) as (upstream, source):
            assert await anext(source, None) is None
        assert upstream.requests[0].header("Authorization") == "x"
        asked = other.requests[0]
        assert [asked.header(name) for name in ("Authorization", "Cookie", "X-Own")] == [None, None, None]
        assert (asked.header("Accept"), asked.header("Accept-Language")) == ("text/event-stream", "en")
        assert asked.header("Host") == f"127.0.0.1:{other.port}"


async def test_redirect_to_another_origin_fails_the_connection_unless_allowed() -> None:
    async with ScriptedUpstream([NO_CONTENT]) as other:
        redirects = [answer(302, "Location: /there")], [answer(302, f"Location: {other.url}/there")]
        async with following(*redirects, cross_origin_redirects=False) as (upstream, source):
            with pytest.raises(ConnectionFailed, match="redirect 302 to another origin, which is not followed"):
                await anext(source)
        assert [asked.target for asked in upstream.requests] == ["/", "/there"]
        assert other.requests == []


async def test_redirect_to_another_origin_does_not_get_the_credentials_of_a_session() -> None:
    async with ScriptedUpstream([NO_CONTENT]) as other, aiohttp.ClientSession(headers={"Authorization": "x"}) as session:
        async with following([answer(302, f"Location: {other.url}/there")], session=session) as (_, source):
            with pytest.raises(ConnectionFailed, match=r"redirect 302 would send the session's credentials to 127\.0\.0\.1"):
                await anext(source)
        assert other.requests == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ([], "redirect 302 without a Location"),
        (["Location:"], "redirect 302 without a Location"),
        (["Location:  "], "redirect 302 without a Location"),
        (["Location: ftp://127.0.0.1/"], "redirect 302 to 'ftp://127.0.0.1/': must begin with http:// or https://"),
        (["Location: https:///x"], "redirect 302 to 'https:///x': must begin with http:// or https://"),
        (["Location: http://127.0.0.1:port/"], "redirect 302 to 'http://127.0.0.1:port/'"),
        (["Location: http://127.0.0.1:65536/"], "redirect 302 to 'http://127.0.0.1:65536/'"),
        (["Location: http://[::1/"], "redirect 302 to 'http://[::1/'"),
    ],
)
async def test_unusable_redirect_fails_the_connection(location: list[str], reason: str) -> None:
    async with following([answer(302, *location)]) as (upstream, source):
        with pytest.raises(ConnectionFailed) as failed:
            await anext(source)
        assert failed.value.reason.startswith(reason)
        assert failed.value.status == 302
        assert len(upstream.requests) == 1


async def test_endless_redirects_fail_the_connection() -> None:
    async with following([answer(307, "Location: /")]) as (upstream, source):
        with pytest.raises(ConnectionFailed, match="more than 20 redirects"):
            await anext(source)
        assert len(upstream.requests) == 21


async def test_twenty_redirects_are_followed() -> None:
    async with following(*[[answer(307, "Location: /")]] * 20, [stream(b"data: a\n\n"), Silence()]) as (_, source):
        assert (await anext(source)).data == "a"


async def test_redirect_to_an_invalid_host_name_fails_the_connection() -> None:
    async with following([answer(302, f"Location: http://{'a' * 70}.example/")], reconnection=patient()) as (_, source):
        with pytest.raises(ConnectionFailed, match=r"a\.example/: the request cannot be sent"):
            await anext(source)


async def test_valid_url_is_sent_unchanged_and_any_other_is_quoted() -> None:
    for url, target in (
        ("/%2Fa%7e?x=%2F&y=a+b%20c#part", "/%2Fa%7e?x=%2F&y=a+b%20c"),
        ("/七 夕?x=节", "/%E4%B8%83%20%E5%A4%95?x=%E8%8A%82"),
        ("/a?", "/a?"),
        ("?", "/?"),
        ("/a??", "/a??"),
        ("/a?#b?", "/a"),
        ("/七?", "/%E4%B8%83?"),
    ):
        async with ScriptedUpstream([NO_CONTENT]) as upstream, EventSource(upstream.url + url) as source:
            assert await anext(source, None) is None
            assert upstream.requests[0].target == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative",
        "ftp://example.org/",
        "http://",
        "//example.org/",
        "http://example.org:port/",
        "http://example.org:65536/",
        "http://[::1/",
    ],
)
def test_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"url {url!r}: ")):
        EventSource(url)


@pytest.mark.parametrize("text", ["a\nb", "a\r", "\0", "\x7f", "\ud800"])
def test_header_and_id_that_http_cannot_carry_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        EventSource("http://example.org/", headers={"X-Own": text})
    with pytest.raises(ValueError):
        EventSource("http://example.org/", last_event_id=text)


def test_last_event_id_among_the_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="pass the first one as last_event_id"):
        EventSource("http://example.org/", headers={"last-event-id": "1"})


def test_error_without_a_text_is_described_by_its_class_name() -> None:
    assert describe(ConnectionResetError(), aiohttp.ClientTimeout()) == "ConnectionResetError"
