"""Requests of any bytes: the gateway passes on what a strict parser reads too, once; refuses all else; answers or ends the connection."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.eventstream.reference import PLACES, cut_at
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated
from tests.fuzz.gatewaying import Connection, Rig, Upstream, running
from tests.fuzz.http_model import Incomplete, Malformed, Message, read_request
from tests.kit.downstream import Answer, Downstream, End, FramingError

pytestmark = TARGET

KEY = "a-key-that-only-its-holder-knows-0123456789"
KEYED = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
CORPUS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream, */*;q=0.1\r\nOrigin: null\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;a=b\r\nx\r\n0\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
    b"POST /kept HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: k\r\n\r\n5\r\nhello\r\n0\r\nTrailer: t\r\n\r\n",
    b"POST /kept HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\nCookie: a=b; c\r\n\r\n{}",
    b"GET /shared/x HTTP/1.1\r\nHost: a\r\nLast-Event-ID: 7\r\nConnection: keep-alive, X\r\nX: y\r\n\r\n",
    b"OPTIONS /cors HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    b"GET /closed HTTP/1.1\r\nHost: a\r\n" + KEYED + b"\r\n",
    b"GET /closed/x HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\nX-User: mallory\r\n\r\n",
    b"HEAD http://a.example:80/a/../b HTTP/1.1\r\nHost: b\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    b"GET /a HTTP/1.0\r\n\r\n",
    b"DELETE /streams/0123456789abcdef HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "GET /é?七=夕 HTTP/1.1\r\nHost: a\r\nX: ä\r\n\r\n".encode(),
]
PIECES = [
    b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"OPTIONS ", b"DELETE ", b"get ", b"PRI ", b"/", b"//", b"/..", b"/.", b"/%2e%2e", b"/%2F",
    b"/;x", b"/closed", b"/CLOSED", b"/%63losed", b"/%2563losed", b"\\closed", b"/shared", b"/kept", b"/cors", b"/streams/", b"?", b"#",
    b"*", b"%", b"http://a", b"http://a/closed", b"HTTP://", b"http://u:p@a/", b"http://[::1]/", b"http://[/", b" HTTP/1.1", b" HTTP/1.0",
    b" HTTP/2.0", b" HTTP/0.9", b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"\r", b"\t", b" ", b"  ", b":", b": ", b" :", b",", b";", b"\0",
    b"\x0b", b"\x0c", b"\x7f", b"\x85", b"\xa0", b"Host: a\r\n", b"Host: b\r\n", b"Host:\r\n", b"Host: a@b\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n", b"Content-Length: +5\r\n", b"Content-Length: 1\r\n", b"Content-Length:\r\n", b"Content-Length: 5, 5\r\n",
    b"content-length: 05\r\n", b"Content-Length : 5\r\n", b"Content_Length: 5\r\n", b"Content-Length: 18446744073709551621\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:chunked \r\n", b"transfer-encoding: CHUNKED\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n", b"Transfer-Encoding: chunked,\r\n", b"X: y\r\n", b" folded\r\n", b"X_Y: z\r\n",
    b"Connection: close\r\n", b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding, Host\r\n", b"Connection: upgrade\r\n",
    b"Upgrade: h2c\r\n", b"TE: trailers\r\n", b"HTTP2-Settings: AAA\r\n", b"Expect: 100-continue\r\n", b"Trailer: X\r\n",
    b"Keep-Alive: 5\r\n", b"Proxy-Connection: close\r\n", KEYED, b"Cookie: a=b\r\n", b"Idempotency-Key: k\r\n",
    b"Idempotency-Key: \xff\r\n", b"Last-Event-ID: \xff\r\n", b"Origin: *\r\n", b"Origin: null\r\n", b"Accept: text/event-stream\r\n",
    b'Accept: "\r\n', b"X-Request-Id: x\r\n", b"Forwarded: for=\"\r\n", b"X-Forwarded-For: ,\r\n", b"X-User: root\r\n", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"5\r\nhello", b"0\r\n", b"00\r\n\r\n", b"5;a=b\r\nhello\r\n", b"5 \r\nhello\r\n", b"0x5\r\nhello\r\n", b"-1\r\n",
    b"FFFFFFFFFFFFFFFF\r\n", b"hello", b"a: b\r\n\r\n", b"\xff\xfe", "七".encode(), b"\x16\x03\x01\x02\x00\x01", b"x" * 300, b"/" * 200,
    b"a=b&" * 60,
]  # fmt: skip
PATH_PIECES = [
    b"/", b"//", b"/.", b"/..", b"/..;", b"\\", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"%25", b"%2e%2e%2f", b";", b";x", b"closed",
    b"CLOSED", b"clo%73ed", b"%2563losed", b"shared", b"%73hared", b"kept", b"cors", b"a", b"?", b"%00", b"\xff", b"streams",
]  # fmt: skip
TARGETS = joined(PATH_PIECES, 7).map(lambda path: b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
SENT = TARGETS | mutated(CORPUS, PIECES) | mutated([CORPUS[0], CORPUS[2], CORPUS[3], CORPUS[4]], PIECES, 3) | joined(PIECES, 16)
END_OF_ANYTHING = b"\r\n\r\n0\r\n\r\n" * 2
"""Behind it a parser that waits for the end of a line, a head or a chunk has it."""
PATHS = ("/shared", "/kept", "/cors", "/closed")
REFUSALS = {*range(400, 500), 501, 505}


class Echo:
    """An upstream that says what it was asked, and finds fault with requests that a strict parser does not read."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.faults: list[str] = []

    def answer(self, connection: Connection) -> None:
        while connection.received:
            try:
                request, connection.received = read_request(connection.received)
            except Incomplete:
                return
            except Malformed as error:
                self.faults.append(f"upstream got {connection.received!r}: {error}")
                connection.transport.abort()
                return
            self.requests.append(request)
            said = json.dumps(digest(request)).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
            connection.transport.write(head if request.first[0] == b"HEAD" else head + said)


def digest(request: Message) -> dict[str, Any]:
    """Return the parts of a request that must be equal before and behind the gateway."""
    method, target, _ = request.first
    if not target.startswith(b"/"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2] if b"/" in target.partition(b"://")[2] else target
    return {"method": method.decode(), "target": target.decode("latin-1"), "body": hashlib.sha256(request.body).hexdigest()}


def without_shared(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All but those of mode shared, which asks once for a stream, and, when the answer is none, once more for the client."""
    return [each for each in asked if not (each["method"] == "GET" and each["target"].startswith("/shared"))]


def readings_of(sent: bytes) -> Iterator[tuple[Message | Malformed | Incomplete, str]]:
    """Yield the requests of a connection and their methods, up to one that ends it or is invalid."""
    while sent := sent.lstrip(b"\r\n"):
        method = "HEAD" if sent.startswith(b"HEAD ") else "GET"
        try:
            request, sent = read_request(sent)
        except (Malformed, Incomplete) as error:
            yield error, method
            return
        yield request, method


def segments_of(target: str, *, decodings: int, parameters: bool) -> list[str]:
    """Return the segments of a path as a server may read it: decoded, without empty segments and dots, with or without parameters."""
    path = target.partition("?")[0]
    for _ in range(decodings):
        path = unquote(path)
    segments: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        bare = segment.partition(";")[0]
        if bare == "..":
            del segments[-1:]
        elif bare not in ("", "."):
            segments.append(segment if parameters else bare)
    return segments


def is_guarded(target: str) -> bool:
    """Whether some server may take a target for one below `/closed`."""
    return any("closed" in map(str.lower, segments_of(target, decodings=count, parameters=False)[:1]) for count in range(3))


def route_of(segments: list[str]) -> str:
    return segments[0] if segments and f"/{segments[0]}" in PATHS else ""


async def _send(downstream: Downstream, chunks: list[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        for chunk in chunks:
            if chunk:
                await downstream.send(chunk)
                await asyncio.sleep(0)


async def _next(downstream: Downstream, method: str) -> Answer | None:
    """Return the next answer, read to its end, or None if the connection has ended instead."""
    try:
        answer = await downstream.answer(method)
        await answer.to_end()
    except (FramingError, ConnectionError):
        assert downstream.end, bytes(downstream.buffer)
        assert not downstream.buffer, bytes(downstream.buffer)
        return None
    return answer


async def ask(rig: Rig, echo: Echo, sent: bytes, places: list[int]) -> None:
    echo.requests.clear()
    passed = []
    async with Downstream(rig.port) as downstream:
        await _send(downstream, cut_at(sent, places))
        for reading, method in readings_of(sent):
            if isinstance(reading, Incomplete):
                await asyncio.sleep(0.002)  # nothing has to come; what comes is seen by the upstream
                break
            if isinstance(reading, Malformed):
                await _send(downstream, [END_OF_ANYTHING])
            answer = await _next(downstream, method)
            assert answer is not None, "the connection ended without an answer"
            status = answer.head.status
            assert not echo.faults, echo.faults
            assert answer.end is End.COMPLETE
            assert status in REFUSALS or (status == 200 and isinstance(reading, Message)) or status == 204, (status, bytes(answer.body))
            assert status != 408, "what is here is waited for"
            if status == 200 and isinstance(reading, Message):
                passed.append(digest(reading))
                assert method == "HEAD" or json.loads(answer.body) == digest(reading)
            closing = "close" in (answer.head.value("Connection") or "").lower() or answer.head.version == "HTTP/1.0"
            if isinstance(reading, Malformed) or closing:
                await downstream.ended()
                # To bytes that are no request the gateway answers without knowing that they were to be a HEAD.
                assert not downstream.buffer or (method == "HEAD" and status == 400), bytes(downstream.buffer)
                break
    assert not echo.faults, echo.faults
    asked = [digest(request) for request in echo.requests]
    assert without_shared(asked) == without_shared(passed)
    for each in asked:
        assert not is_guarded(each["target"]) or KEY.encode() in sent, each
        route = route_of(each["target"].partition("?")[0].split("/")[1:])
        assert route_of(segments_of(each["target"], decodings=1, parameters=True)) == route, each


def test_requests(tmp_path: Path) -> None:
    echo = Echo()
    guard = {"kind": "api-keys", "keys": [{"name": "k", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}], "subject_header": "X-User"}
    with running() as rig:
        limits = {"upstream": rig.enter(Upstream(echo.answer)).url, "first_byte_timeout_seconds": 5.0, "body_timeout_seconds": 1.0}
        routes: list[dict[str, Any]] = [
            {"path": "/"},
            {"path": "/shared", "mode": "shared"},
            {"path": "/kept", "mode": "resumable"},
            {"path": "/cors", "cors": {"origins": ["https://a.example"]}},
            {"path": "/closed", "auth": guard},
        ]
        rig.serve_gateway([limits | route for route in routes], tmp_path, head_seconds=1.0, keepalive_seconds=2.0)

        def check_requests(sent: bytes, places: list[int]) -> None:
            rig.run(ask(rig, echo, sent, places))

        fuzz(check_requests, SENT, PLACES, shrinks=False)
