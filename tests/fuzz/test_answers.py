"""Answers of any bytes from an upstream: the client gets what a strict parser reads, or an error, and the next request its own answer."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from eventstream import Framer, Parser
from tests.eventstream.reference import PLACES, cut_at
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated
from tests.fuzz.gatewaying import Connection, Rig, Upstream, running
from tests.fuzz.http_model import Incomplete, Malformed, Message, read_request, read_response
from tests.kit.downstream import Answer, Downstream, End

pytestmark = TARGET

SSE = b"Content-Type: text/event-stream\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CORPUS = [
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + SSE + CHUNKED + b"\r\n9\r\ndata: a\n\n\r\n5;x=y\r\ndata:\r\n4\r\n b\n\n\r\n0\r\nX: y\r\n\r\n",
    OK + SSE + b"\r\nid: 1\ndata: a\n\ndata: b\n\n",
    OK + SSE + b"Content-Length: 9\r\n\r\ndata: a\n\n",
    OK + SSE + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/x\r\nRefresh: 5; url=//b/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 500 Oops\r\nConnection: close\r\n\r\nbody",
    b"HTTP/1.1 404 Nicht gefunden \xc3\xa4\r\nX: \xff\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
]
PIECES = [
    b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2 ", b"200", b"204", b"304", b"205", b"100", b"101", b"503", b"999", b"000", b"200 OK\r\n", b" OK",
    b"ICY 200 OK\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"\r", b" ", b"\t", b":", b": ", b",", b"\0", b"\x0b", b"\x0c", b"\x7f",
    b"\x85", b"\xa0", b"\xff", b"\xc3\xa4", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: -1\r\n",
    b"Content-Length: 5, 5\r\n", b"Content-Length: x\r\n", CHUNKED, b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: identity\r\n", SSE,
    b"Content-Type: text/event-stream; charset=utf-8\r\n", b"Content-Type: \xff\r\n", b"Content-Encoding: br\r\n",
    b"Content-Encoding: \xff\r\n", b"Content-Encoding: none\r\n", b"Connection: close\r\n", b"Connection: X, Content-Length\r\n",
    b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n", b"Keep-Alive: timeout=1\r\n", b"Trailer: X\r\n", b"X: y\r\n", b"X: \xff\xfe\r\n",
    b"\xffX: y\r\n", b" folded\r\n", b"X : y\r\n", b": y\r\n", b"X\r\n", b"Set-Cookie: a=b\r\n", b"Set-Cookie: \xff=\0\r\n",
    b"Location: //[\r\n", b"Location: http://[::1/\r\n", b"Location: \xff\r\n", b"Refresh: \r\n", b"Cache-Group-Invalidation: \"a\r\n",
    b"Vary: *\r\n", b"Access-Control-Allow-Origin: *\r\n", b"Date: x\r\n", b"Server: \r\n", b"Via: \xff\r\n", b"0\r\n\r\n",
    b"5\r\nhello\r\n", b"5;a=b\r\n", b"5 \r\n", b"0\r\nX: y\r\n\r\n", b"FFFFFFFF\r\n", b"-5\r\n", b"0x5\r\n", b"00000000000000005\r\n",
    b"hello", b"data: x\n\n", b"id: 7\n", b"\r\r", b"retry: 5\n", b"\xef\xbb\xbf", b"x" * 300, OK, OK + b"Content-Length: 0\r\n\r\n",
]  # fmt: skip
SENT = mutated(CORPUS, PIECES) | mutated(CORPUS[:4], PIECES, 3) | joined(PIECES, 12).map(lambda rest: OK + rest) | joined(PIECES, 10)
OWN_FIELDS = {
    "server", "date", "content-type", "content-length", "transfer-encoding", "connection", "cache-control", "x-accel-buffering",
    "x-request-id", "stream-id", "location", "content-location", "refresh", "retry-after",
}  # fmt: skip
METHODS = {"direct": ("GET", "HEAD", "POST", "DELETE"), "kept": ("POST",), "shared": ("GET",)}
ASKED = [(mode, method) for mode, methods in METHODS.items() for method in methods]
ERRORS = {502, 503, 504}


class Scene:
    """An upstream that answers probes with what they ask for, and anything else with the bytes of the input."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ends = ""
        self._playing: set[asyncio.Task[None]] = set()

    def answer(self, connection: Connection) -> None:
        try:
            request, connection.received = read_request(connection.received)
        except Incomplete:
            return
        target = request.first[1]
        if target.startswith(b"/direct/probe"):
            connection.transport.write(OK + b"Content-Length: %d\r\n\r\n" % len(target) + target)
            return
        task = asyncio.get_running_loop().create_task(self._play(connection))
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)

    async def _play(self, connection: Connection) -> None:
        for chunk in self.chunks:
            if chunk and not connection.transport.is_closing():
                connection.transport.write(chunk)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        if self.ends == "close":
            connection.transport.close()
        elif self.ends == "reset":
            await asyncio.sleep(0.001)
            connection.transport.abort()


def read(sent: bytes, method: str) -> Message | Malformed | Incomplete:
    try:
        message, rest = read_response(sent, method)
    except (Malformed, Incomplete) as error:
        return error
    if message.first[1] == b"101" or (rest and int(message.first[1]) not in (204, 304) and method != "HEAD"):
        return Malformed("unasked")
    return message


async def ask(rig: Rig, scene: Scene, asked: tuple[str, str], sent: bytes, places: list[int], ends: str, number: int) -> None:
    mode, method = asked
    expected = read(sent, method)
    scene.chunks = cut_at(sent, places)
    scene.ends = ends if isinstance(expected, Message) and not expected.until_close else ends or "close"
    async with Downstream(rig.port) as downstream:
        await downstream.ask(f"/{mode}/{number}", method, body=b"{}" if method == "POST" else b"")
        answer = await downstream.answer(method)
        if mode == "shared" and answer.head.status == 200 and answer.head.value("Content-Type") == "text/event-stream":
            await answer.receive(1, timeout=5) if isinstance(expected, Message) and Framer().feed(expected.body) else None
        else:
            check(mode, method, expected, sent, await answer.to_end(), answer)
    for reader in (f"/direct/probe/{number}", f"/direct/probe/{number}/again"):
        async with Downstream(rig.port) as downstream:
            await downstream.ask(reader)
            answer = await downstream.answer()
            assert (answer.head.status, await answer.to_end(), answer.end) == (200, reader.encode(), End.COMPLETE)


def check(mode: str, method: str, expected: Message | Malformed | Incomplete, sent: bytes, body: bytes, answer: Answer) -> None:
    status = answer.head.status
    whole = answer.end in (End.COMPLETE, End.CLOSED)
    if not isinstance(expected, Message):
        assert status in ERRORS or not whole or b"%d" % status in sent, (status, body)
        assert status in ERRORS or not whole or isinstance(expected, Malformed), "what was cut looks complete"
        return
    if status in ERRORS and status != int(expected.first[1]):
        return
    assert status == int(expected.first[1])
    names = {name.lower().decode() for name, _ in expected.fields}
    assert {name.lower() for name, _ in answer.head.fields} <= names | OWN_FIELDS
    is_stream = expected.value(b"Content-Type").partition(b";")[0].strip().lower() == b"text/event-stream" and status == 200
    if is_stream and expected.values(b"Content-Encoding"):
        return
    if method == "HEAD" or status in (204, 304):
        assert body == b""
    elif mode == "kept" and is_stream:
        mine, others = ([event.data for event in Parser().feed(Framer().feed(each))] for each in (body, expected.body))
        assert mine == others[: len(mine)]
        assert not whole or mine == others or expected.until_close
    elif whole:
        assert body == expected.body
    else:
        assert expected.body.startswith(body)
        assert expected.until_close or b";" in sent, "what is complete was cut"  # a parser may be strict about chunk extensions


def test_answers(tmp_path: Path) -> None:
    scene, numbers = Scene(), itertools.count()
    with running() as rig:
        upstream = rig.enter(Upstream(scene.answer))
        limits = {"upstream": upstream.url, "heartbeat_seconds": 0.0, "first_byte_timeout_seconds": 5.0, "wait_seconds": 0.0}
        routes: list[dict[str, Any]] = [
            {"path": "/direct"},
            {"path": "/kept", "mode": "resumable", "retain_seconds": 0.0, "orphan_seconds": 0.0},
            {"path": "/shared", "mode": "shared", "linger_seconds": 0.0},
        ]
        rig.serve_gateway([limits | route for route in routes], tmp_path)

        def check_answers(asked: tuple[str, str], sent: bytes, places: list[int], ends: str) -> None:
            rig.run(ask(rig, scene, asked, sent, places, ends, next(numbers)))

        fuzz(check_answers, st.sampled_from(ASKED), SENT, PLACES, st.sampled_from(["", "close", "reset"]), shrinks=False)
