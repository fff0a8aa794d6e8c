"""Which header fields pass, which end at the proxy, and which it adds."""

from collections.abc import Sequence

import pytest

from tests.kit.downstream import End, Head
from tests.kit.upstream import Asked, chunk
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD, LAST_CHUNK

pytestmark = pytest.mark.asyncio(loop_scope="session")

Fields = Sequence[tuple[str, str]]


async def through(
    converse: Converse, request: Fields = (), response: bytes = b"", content_type: bytes = b"text/event-stream"
) -> tuple[Asked, Head]:
    """Send header fields both ways; return the request as the upstream got it and the response as the client got it."""
    head = HEAD.replace(b"text/event-stream", content_type).removesuffix(b"\r\n") + response + b"\r\n"
    async with converse(head, chunk(b"data: x\n\n"), LAST_CHUNK, headers=request) as talk:
        answer = await talk.answer()
        await answer.to_end()
        return await talk.scene.asked(), answer.head


async def test_end_to_end_fields_pass_up(converse: Converse) -> None:
    sent = [("Authorization", "Bearer x.y/z=="), ("Cookie", "a=b; c=d"), ("Last-Event-ID", "7/ä"), ("X-Empty", ""), ("Range", "bytes=0-5")]
    sent += [("User-Agent", "Test/1"), ("Accept", "text/event-stream"), ("Cache-Control", "no-cache"), ("Origin", "http://a.example")]
    asked, _ = await through(converse, sent)
    for name, value in sent:
        assert asked.header(name) == value.encode().decode("latin-1"), name


async def test_repeated_fields_pass_up_in_order(converse: Converse) -> None:
    asked, _ = await through(converse, [("X-Many", "1"), ("X-Other", "x"), ("X-Many", "2")])
    assert asked.header("X-Many") == "1, 2"


async def test_hop_by_hop_fields_do_not_pass_up(converse: Converse) -> None:
    sent = [("Connection", "keep-alive, X-Private, x-other"), ("X-Private", "1"), ("X-Other", "2"), ("Keep-Alive", "timeout=5")]
    sent += [("Proxy-Connection", "keep-alive"), ("TE", "trailers, deflate"), ("Proxy-Authorization", "Basic eA=="), ("Upgrade", "h2c")]
    asked, _ = await through(converse, [*sent, ("X-Public", "3")])
    for name in ["X-Private", "X-Other", "Keep-Alive", "Proxy-Connection", "Upgrade", "TE", "Proxy-Authorization"]:
        assert asked.header(name) is None, name
    assert (asked.header("Connection") or "keep-alive").lower() in ("keep-alive", "close")
    assert asked.header("X-Public") == "3"


async def test_hop_by_hop_fields_do_not_pass_down(converse: Converse) -> None:
    sent = b"Connection: X-Private, keep-alive\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
    sent += b"Proxy-Connection: close\r\nX-Public: 3\r\n"
    _, head = await through(converse, response=sent)
    for name in ["X-Private", "Keep-Alive", "Upgrade", "Proxy-Connection"]:
        assert head.value(name) is None, name
    assert (head.value("Connection") or "keep-alive").lower() == "keep-alive"
    assert head.value("X-Public") == "3"


async def test_end_to_end_fields_pass_down(converse: Converse) -> None:
    sent = b'Set-Cookie: a=1; Path=/\r\nETag: "x"\r\nSet-Cookie: b=2, c\r\nX-Name: caf\xc3\xa9\r\nLink: </a>\r\nLink: </b>\r\nX-Empty:\r\n'
    _, head = await through(converse, response=sent)
    assert head.values("Set-Cookie") == ["a=1; Path=/", "b=2, c"]
    assert head.values("ETag") == ['"x"']
    assert head.value("X-Name") == b"caf\xc3\xa9".decode("latin-1")
    assert head.value("Link") == "</a>, </b>"
    assert len(head.values("Date")) <= 1
    assert len(head.values("Server")) <= 1
    assert len(head.values("Content-Type")) == 1


async def test_via_is_appended_to_the_existing_field(converse: Converse, gateway: None) -> None:
    asked, _ = await through(converse)
    assert (asked.header("Via") or "").startswith("1.1 ")
    asked, _ = await through(converse, [("Via", "1.0 fred")])
    assert (asked.header("Via") or "").startswith("1.0 fred, 1.1 ")


async def test_forwarding_fields_name_client_host_and_scheme(converse: Converse, gateway: None) -> None:
    async with converse(HEAD, LAST_CHUNK, headers=[]) as talk:
        await (await talk.answer()).to_end()
        asked = await talk.scene.asked()
        authority = "{}:{}".format(*talk.downstream.socket.getpeername())
    assert asked.header("X-Forwarded-For") == "127.0.0.1"
    assert asked.header("X-Forwarded-Proto") == "http"
    assert asked.header("X-Forwarded-Host") == authority
    forwarded = dict(pair.split("=", 1) for pair in (asked.header("Forwarded") or "").lower().replace(" ", "").split(";"))
    assert forwarded["for"].strip('"') == "127.0.0.1"
    assert forwarded["proto"] == "http"
    assert forwarded["host"] == f'"{authority}"'  # a colon is no token character


async def test_forwarding_fields_name_only_the_real_client(converse: Converse, gateway: None) -> None:
    """Fields from the client are not trusted."""
    asked, _ = await through(converse, [("X-Forwarded-For", "9.9.9.9"), ("Forwarded", "for=9.9.9.9")])
    assert asked.header("X-Forwarded-For") == "127.0.0.1"
    assert "9.9.9.9" not in (asked.header("Forwarded") or "")


async def test_event_stream_is_requested_uncompressed(converse: Converse, gateway: None) -> None:
    asked, _ = await through(converse, [("Accept", "text/event-stream"), ("Accept-Encoding", "gzip, br, zstd")])
    assert asked.header("Accept-Encoding") == "identity"


async def test_event_stream_is_marked_as_not_to_be_cached_or_buffered(converse: Converse, gateway: None) -> None:
    _, head = await through(converse)
    assert head.values("Cache-Control") == ["no-cache, no-transform"]
    assert head.values("X-Accel-Buffering") == ["no"]
    assert head.value("Content-Length") is None


async def test_cache_control_of_the_upstream_stays(converse: Converse, gateway: None) -> None:
    _, head = await through(converse, response=b"Cache-Control: private, max-age=5\r\nX-Accel-Buffering: no\r\n")
    assert head.values("Cache-Control") == ["private, max-age=5"]
    assert head.values("X-Accel-Buffering") == ["no"]


async def test_other_content_types_are_not_marked(converse: Converse, gateway: None) -> None:
    _, head = await through(converse, content_type=b"text/plain")
    assert head.value("Cache-Control") is None
    assert head.value("X-Accel-Buffering") is None


@pytest.mark.parametrize("name", ["Content-Type", "Date", "Server"])
async def test_answer_has_each_field_exactly_once(converse: Converse, name: str) -> None:
    sent = {"Content-Type": b"", "Date": b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n", "Server": b"Server: upstream/1\r\n"}[name]
    _, head = await through(converse, response=sent)
    assert len(head.values(name)) == 1
    if name == "Date":
        assert head.value("Date") == "Mon, 01 Jan 2024 00:00:00 GMT"


async def test_answer_without_content_type_does_not_get_one(converse: Converse) -> None:
    async with converse(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx") as talk:
        answer = await talk.answer()
        assert await answer.to_end() == b"x"
        assert answer.head.value("Content-Type") in (None, "application/octet-stream")


@pytest.mark.parametrize("streamed", [False, True])
async def test_many_fields_pass_both_ways(converse: Converse, streamed: bool) -> None:
    fields = [(f"X-{number}", str(number)) for number in range(2000)]
    response = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    head, body = (HEAD, [chunk(b"data: x\n\n"), LAST_CHUNK]) if streamed else (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", [b"ok"])
    async with converse(head.removesuffix(b"\r\n") + response + b"\r\n", *body, headers=fields) as talk:
        answer = await talk.answer()
        assert {*fields} <= {*answer.head.fields}
        assert {*fields} <= {*(await talk.scene.asked()).headers}
        await answer.to_end()
        assert answer.end is End.COMPLETE


@pytest.mark.parametrize("pieces", [1, 7])
async def test_request_with_too_many_bytes_of_fields_is_a_431_and_ends_the_connection(
    converse: Converse, gateway: None, pieces: int
) -> None:
    """The limit of all fields together is four times that of one, 64 KiB by default."""
    async with converse(HEAD, LAST_CHUNK) as talk:
        await (await talk.answer()).to_end()
        head = b"".join([b"GET /plain HTTP/1.1\r\nHost: a\r\n", *(b"X-%d: %s\r\n" % (n, b"v" * 1000) for n in range(70)), b"\r\n"])
        step = -(-len(head) // pieces)
        for start in range(0, len(head), step):
            await talk.downstream.send(head[start : start + step])
        answer = await talk.downstream.answer()
        assert answer.head.status == 431
        assert b"65536 bytes" in await answer.to_end()
        await talk.downstream.ended()
        assert len(talk.scene.requests) == 1


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        (b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(70)), b"the head of its answer passed 65536 bytes"),
        (b"X-Endless: 1\r\n" * 1_000_000, b"the head of its answer passed 65536 bytes"),
        (b"X-Long: " + b"v" * 17_000 + b"\r\n", b"a line in the head of its answer passed 16384 bytes"),
    ],
    ids=["large head", "endless head", "long line"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_answer_with_too_many_bytes_of_fields_is_a_502_with_the_reason(
    converse: Converse, gateway: None, method: str, fields: bytes, detail: bytes
) -> None:
    async with converse(HEAD.removesuffix(b"\r\n") + fields + b"\r\n", method=method) as talk:
        answer = await talk.answer()
        assert answer.head.status == 502
        assert detail in await answer.to_end()
        assert len(talk.scene.requests) == 1
        await talk.scene.left()
