"""Ambiguous and malformed requests: each gets a clear error, and none reaches the upstream."""

import contextlib
import json

import pytest

from tests.kit.downstream import Answer, Downstream, End
from tests.kit.routed_gateway import Gateway
from tests.kit.stage import Scene, Stage
from tests.kit.upstream import Act, chunk, swallow

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SMUGGLED = b"GET /plain/smuggled HTTP/1.1\r\nHost: test\r\n\r\n"
CHUNKED = b"POST /plain HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


def get(*lines: bytes, target: bytes = b"/plain", version: bytes = b"HTTP/1.1") -> bytes:
    """Return the head of a request up to the stage's own field."""
    return b"\r\n".join([b"GET %s %s" % (target, version), b"Host: a", *lines, b""])


REFUSED = {
    "no Host": (400, b"GET /plain HTTP/1.1\r\n"),
    "two Hosts": (400, get(b"Host: b")),
    "blank in Host": (400, b"GET /plain HTTP/1.1\r\nHost: a b\r\n"),
    "list in Host": (400, b"GET /plain HTTP/1.1\r\nHost: a, b\r\n"),
    "path in Host": (400, b"GET /plain HTTP/1.1\r\nHost: a/b\r\n"),
    "user in Host": (400, b"GET /plain HTTP/1.1\r\nHost: a@b\r\n"),
    "bare LF": (400, b"GET /plain HTTP/1.1\nHost: a\n"),
    "one bare LF": (400, b"GET /plain HTTP/1.1\r\nHost: a\nX: y\r\n"),
    "bare CR": (400, get(b"X: y\rZ: 1")),
    "folded field": (400, get(b"X: y", b" z")),
    "folded coding": (400, CHUNKED.replace(b": chunked", b":\r\n chunked")),
    "blank before the first field": (400, b"GET /plain HTTP/1.1\r\n Host: a\r\nHost: b\r\n"),
    "blank before a colon": (400, get(b"X : y")),
    "no colon": (400, get(b"X")),
    "no name": (400, get(b": y")),
    "name with a blank": (400, get(b"X Y: z")),
    "name with a bracket": (400, get(b"X(Y): z")),
    "name beyond ASCII": (400, get("Xé: z".encode())),
    "NUL in a name": (400, get(b"X\x00Y: z")),
    "NUL in a value": (400, get(b"X: y\x00z")),
    "control character in a value": (400, get(b"X: y\x01z")),
    "underscore for a hyphen of the framing": (400, get(b"Transfer_Encoding: chunked")),
    "underscore for a hyphen of an address": (400, get(b"X-Forwarded_For: 203.0.113.6")),
    "two equal lengths": (400, get(b"Content-Length: 1", b"Content-Length: 1")),
    "two lengths": (400, get(b"Content-Length: 1", b"Content-Length: 2")),
    "list of lengths": (400, get(b"Content-Length: 1, 1")),
    "length that overflows": (400, get(b"Content-Length: 18446744073709551617")),
    "length in other digits": (400, get("Content-Length: ١".encode())),
    "length with an underscore": (400, get(b"Content-Length: 1_0")),
    "empty length": (400, get(b"Content-Length:")),
    "length and chunked": (400, get(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    "chunked and length": (400, get(b"Transfer-Encoding: chunked", b"Content-Length: 5")),
    "only another coding": (400, get(b"Transfer-Encoding: gzip")),
    "chunked twice": (400, get(b"Transfer-Encoding: chunked, chunked")),
    "chunked in two fields": (400, get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "tab of another kind": (400, get(b"Transfer-Encoding: \x0bchunked")),
    "chunked in HTTP/1.0": (400, get(b"Transfer-Encoding: chunked", version=b"HTTP/1.0")),
    "HTTP/1.2": (400, get(version=b"HTTP/1.2")),
    "http in small letters": (400, get(version=b"http/1.1")),
    "method that is none": (400, get().replace(b"GET", b"G\x01T")),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "fragment in the target": (400, get(target=b"/plain#x")),
    "blank in the target": (400, get(target=b"/pl ain")),
    "control character in the target": (400, get(target=b"/plain\x01")),
    "target that is no path": (400, get(target=b"plain")),
    "target of another scheme": (400, get(target=b"ftp://a/plain")),
    "credentials in the target": (400, get(target=b"http://user:password@a/plain")),
    "authority of CONNECT": (400, get(target=b"a:1").replace(b"GET", b"CONNECT")),
    "dots out of the route": (400, get(target=b"/plain/../base/x")),
    "encoded dots out of the route": (400, get(target=b"/plain/%2E%2e/base/x")),
    "encoded slash out of the route": (400, get(target=b"/plain/..%2fbase/x")),
    "dots with a parameter out of the route": (400, get(target=b"/plain/..;x/base/x")),
    "encoded letter of another route": (400, get(target=b"/base/pl%61in/x")),
    "slash too many before another route": (400, get(target=b"/base//plain")),
    "thousands of fields": (431, get(*(b"X-%d: y" % number for number in range(5000)))),
    "long field": (431, get(b"X: " + b"y" * 20_000)),
    "long target": (431, get(target=b"/plain/" + b"x" * 20_000)),
    "long head": (431, get(*(b"X-%d: %s" % (number, b"y" * 10_000) for number in range(100)))),
}
BAD_CHUNKS = {
    "no size": b"\r\nx\r\n",
    "bad size": b"xyz\r\n",
    "signed size": b"+1\r\nx\r\n",
    "size with an underscore": b"0_1\r\nx\r\n",
    "size with a prefix": b"0x1\r\nx\r\n",
    "size that overflows": b"10000000000000001\r\nx\r\n",
    "blank before a size": b" 1\r\nx\r\n",
    "blank behind a size": b"1 \r\nx\r\n",
    "bare LF behind a size": b"1\nx\n",
    "bare CR behind a size": b"1\rx\r\n",
    "bare LF behind a chunk": b"1\r\nx\n",
    "nothing behind a chunk": b"1\r\nx0\r\n",
    "longer than its size": b"1\r\nxyz\r\n",
    "bare LF in an extension": b"1;a\nb\r\nx\r\n",
    "bare CR in an extension": b"1;a\rb\r\nx\r\n",
    "length among the trailers": b"0\r\nContent-Length: 5\r\n\r\n",
    "thousands of trailers": b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
}


def field(scene: Scene) -> bytes:
    [(name, value)] = scene.headers
    return f"{name}: {value}\r\n".encode()


async def send(downstream: Downstream, sent: bytes) -> None:
    """Send as much as the gateway reads: it may have answered and closed already."""
    with contextlib.suppress(ConnectionError):
        await downstream.send(sent)


async def assert_problem(answer: Answer, status: int) -> None:
    body = await answer.to_end()
    assert (answer.head.status, answer.end) == (status, End.COMPLETE), body
    assert answer.head.value("Content-Type") == "application/problem+json"
    assert answer.head.value("Server") == "gateway"
    assert json.loads(body)["status"] == status
    assert json.loads(body)["detail"]


@pytest.mark.parametrize("fault", REFUSED)
async def test_malformed_head_is_refused_and_nothing_after_it_is_read(proxy: Gateway, stage: Stage, fault: str) -> None:
    status, head = REFUSED[fault]
    scene, strays = stage.scene(OK), len(stage.strays)
    line_end = b"\n" if fault == "bare LF" else b"\r\n"
    async with Downstream(proxy.port) as downstream:
        await send(downstream, head + field(scene).replace(b"\r\n", line_end) + line_end + SMUGGLED)
        await assert_problem(await downstream.answer(), status)
        await downstream.ended()
        assert not downstream.buffer
    assert not scene.requests
    assert len(stage.strays) == strays, stage.strays


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (501, get(b"Transfer-Encoding: gzip, chunked")),
        (505, get(version=b"HTTP/2.0")),
        (505, get(version=b"HTTP/0.9")),
    ],
)
async def test_unsupported_protocol_is_refused(proxy: Gateway, stage: Stage, status: int, head: bytes) -> None:
    scene = stage.scene(OK)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(head + field(scene) + b"\r\n" + (b"0\r\n\r\n" if status == 501 else b""))
        await assert_problem(await downstream.answer(), status)
        await downstream.ended()
    assert not scene.requests


@pytest.mark.parametrize("fault", BAD_CHUNKS)
async def test_malformed_chunk_is_refused(proxy: Gateway, stage: Stage, fault: str) -> None:
    scene, strays = stage.scene(OK), len(stage.strays)
    async with Downstream(proxy.port) as downstream:
        await send(downstream, CHUNKED + field(scene) + b"\r\n" + chunk(b"begin") + BAD_CHUNKS[fault] + chunk(b"") + SMUGGLED)
        await assert_problem(await downstream.answer(), 431 if fault == "thousands of trailers" else 400)
        await downstream.ended()
        assert not downstream.buffer
    assert not scene.requests
    assert len(stage.strays) == strays, stage.strays


@pytest.mark.parametrize("fault", BAD_CHUNKS)
async def test_malformed_chunk_after_a_forwarded_head_ends_the_upstream_request(proxy: Gateway, stage: Stage, fault: str) -> None:
    scene, strays = stage.scene(Act(swallow), read_body=False), len(stage.strays)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(CHUNKED + field(scene) + b"\r\n" + chunk(b"begin"))
        await scene.asked()
        await send(downstream, BAD_CHUNKS[fault] + chunk(b"") + SMUGGLED)
        await assert_problem(await downstream.answer(), 400)
        await scene.left()
        await downstream.ended()
        assert not downstream.buffer
    assert len(stage.strays) == strays, stage.strays


async def test_chunk_extensions_are_dropped(proxy: Gateway, stage: Stage) -> None:
    scene = stage.scene(OK)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(CHUNKED + field(scene) + b'\r\n1;a=b\r\nx\r\n2;c="d;\\"e"\r\nyz\r\n0;f\r\n\r\n')
        assert (await downstream.answer()).head.status == 200
    assert scene.requests[0].body == b"xyz"


async def test_host_of_an_absolute_target_takes_precedence_over_the_field(proxy: Gateway, stage: Stage) -> None:
    """Follow RFC 9112 section 3.2.2."""
    scene = stage.scene(OK)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(get(target=b"http://b.example:81/plain") + field(scene) + b"\r\n")
        assert (await downstream.answer()).head.status == 200
    [asked] = scene.requests
    assert asked.header("X-Forwarded-Host") == "b.example:81"


@pytest.mark.parametrize("target", [b"/plain/../plain/x", b"/plain/a/%2e%2e/b", b"/plain//x", b"/plain/%70lain", b"/plain/a%2Fb"])
async def test_odd_target_that_stays_in_its_route_passes_unchanged(proxy: Gateway, stage: Stage, target: bytes) -> None:
    scene = stage.scene(OK)
    async with Downstream(proxy.port) as downstream:
        await downstream.send(get(target=target) + field(scene) + b"\r\n")
        assert (await downstream.answer()).head.status == 200
    assert scene.requests[0].target == target.decode()


async def test_refused_request_is_logged_without_its_content(proxy: Gateway) -> None:
    async with Downstream(proxy.port) as downstream:
        await downstream.send(get(b"Authorization: Bearer planted\x00") + b"\r\n")
        await assert_problem(await downstream.answer(), 400)
        await downstream.ended()
    async with Downstream(proxy.port) as downstream:
        await send(downstream, get(b"Authorization: Bearer planted" + b"x" * 20_000) + b"\r\n")
        await assert_problem(await downstream.answer(), 431)
    assert "bad request: Invalid header value char" in proxy.text()
    assert "bad request: the request line or a header field is too long" in proxy.text()
    assert "planted" not in proxy.text()
