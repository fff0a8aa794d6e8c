"""Upstreams that hang up after the last byte, send too much, answer before they have read, or detect only failed writes.

Each runs plain and with TLS, a thread per connection. The routes of this file have all modes of the gateway.
"""

import asyncio
import contextlib
import re
import select
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil
import pytest
import pytest_asyncio

from tests.kit.blocking_upstream import BlockingUpstream, Connection
from tests.kit.certificates import Authority
from tests.kit.downstream import AT_ONCE_SECONDS, Answer, Downstream, End
from tests.kit.routed_gateway import Gateway, Route, running
from tests.kit.waiting import GUARD_SECONDS
from tests.proxy.concurrently import all_hold

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("gateway")]

FIELD = re.compile(rb"(?i)\r\nX-Scene: (\d+)")
MOST_STREAMS = 10
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
EVENTS = b"retry: 100\n" + b"".join(b"id: %d\ndata: %s\n\n" % (number, b"." * 1000) for number in range(1, 301))

Scene = Callable[[Connection, bytes], None]
"""Answers one request, whose head it gets. When it returns, the next request on the connection is awaited."""


class Hall:
    """Plays for each request the scene that it names."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []

    def play(self, connection: Connection) -> None:
        while (head := connection.read_head()) is not None:
            named = FIELD.search(head)
            assert named is not None, head
            self.scenes[int(named[1])](connection, head)


@dataclass
class House:
    """An odd upstream, the gateway in front of it, and requests to them."""

    upstream: BlockingUpstream
    subject: Gateway
    _hall: Hall
    _paths: Iterator[int] = field(default_factory=lambda: iter(range(1_000_000)))

    @contextlib.asynccontextmanager
    async def ask(
        self, scene: Scene, path: str = "/direct", method: str = "GET", headers: tuple[tuple[str, str], ...] = (), body: bytes = b""
    ) -> AsyncIterator[Downstream]:
        """Send a request on a connection of its own, which the upstream answers with `scene`."""
        self._hall.scenes.append(scene)
        number = str(len(self._hall.scenes) - 1)
        async with Downstream(self.subject.port) as downstream:
            await downstream.ask(f"{path}/{next(self._paths)}", method, [("X-Scene", number), *headers], body)
            yield downstream

    async def body(self, scene: Scene, path: str = "/direct") -> tuple[int, bytes]:
        """Return status and body of the answer to a GET."""
        async with self.ask(scene, path) as downstream:
            answer = await downstream.answer()
            return answer.head.status, await answer.to_end()

    async def until(self, fact: Callable[[], bool], within: float = AT_ONCE_SECONDS) -> None:
        """Return when `fact` holds."""
        async with asyncio.timeout(within):
            while not fact():
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["http", "https"])
async def house(request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    hall, directory = Hall(), tmp_path_factory.mktemp("odd")
    secure = request.param == "https"
    context = authority.issue("odd").server_context() if secure else None
    with BlockingUpstream(hall.play, context).running() as upstream:

        def route(path: str, **keys: object) -> Route:
            trust = {"ca_file": str(authority.file)} if secure else {}
            return {"path": path, "upstream": upstream.url, "heartbeat_seconds": 0} | trust | keys

        routes = [
            route("/direct"),
            route("/kept", mode="resumable", methods=["GET", "POST"]),
            route("/orphan", mode="resumable", methods=["GET", "POST"], orphan_seconds=0),
            route("/shared", mode="shared", linger_seconds=0, wait_seconds=0, initial="history", share_by=["x-scene"]),
        ]
        settings = {"drain_seconds": 1, "max_streams": MOST_STREAMS, "max_streams_per_client": MOST_STREAMS}
        async with running(routes, directory, **settings) as subject:
            yield House(upstream, subject, hall)


# An upstream that hangs up after the last byte

FRAMINGS: dict[str, Callable[[bytes], bytes]] = {
    "length": lambda body: b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    "close": lambda body: b"Connection: close\r\n\r\n" + body,
    "chunked": lambda body: b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
}


def hang_up_behind(wire: bytes) -> Scene:
    """Return a scene that ends the connection with the last byte; a second request, by a reconnecting stream, gets a 204."""
    asked = []

    def scene(connection: Connection, _head: bytes) -> None:
        asked.append(1)
        connection.end(wire if len(asked) == 1 else b"HTTP/1.1 204 No Content\r\n\r\n")

    return scene


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("path", ["/direct", "/kept", "/shared"])
async def test_every_event_arrives_from_an_upstream_that_hangs_up_after_the_last_byte(house: House, path: str, framing: str) -> None:
    for _ in range(5):
        async with house.ask(hang_up_behind(STREAM_HEAD + FRAMINGS[framing](EVENTS)), path) as downstream:
            answer = await downstream.answer()
            body = await answer.to_end()
            assert answer.end is End.COMPLETE
        if path == "/kept":  # its events have IDs of their own
            body = re.sub(rb"(?m)^id: [0-9a-f]{32}-(\d+)$", rb"id: \1", body)
            assert sorted(body.splitlines()) == sorted(EVENTS.splitlines())
        else:
            assert body in (EVENTS, b"retry: 100\n" + EVENTS)  # subscribers of a shared stream get the upstream's retry first


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_every_byte_of_a_download_arrives_from_an_upstream_that_hangs_up_after_it(house: House, framing: str) -> None:
    file = bytes(range(256)) * 12_000  # 3 MB
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    for _ in range(5):
        assert await house.body(hang_up_behind(head + FRAMINGS[framing](file))) == (200, file)


async def test_slow_reader_gets_every_byte_of_an_upstream_that_hung_up_long_ago(house: House) -> None:
    file = bytes(range(256)) * 12_000
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
    async with house.ask(hang_up_behind(head + FRAMINGS["close"](file))) as downstream:
        answer = await downstream.answer()
        await asyncio.sleep(0.3)  # a reader that reads nothing for a while
        assert await answer.to_end() == file


# An upstream that sends too much


def answers(wire: bytes) -> Scene:
    return lambda connection, _head: connection.send(wire)


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


SURPLUS: dict[str, tuple[str, bytes, bytes]] = {
    "a second answer": ("GET", whole(b"mine"), whole(b"FOREIGN")),
    "half a second answer": ("GET", whole(b"mine"), b"HTTP/1.1 200 OK\r\nContent-Le"),
    "more than its length": ("GET", whole(b"mine"), b"FOREIGN"),
    "more than its chunks": ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n", whole(b"FOREIGN")),
    "a body behind a 204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"FOREIGN"),
    "a body behind a 304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", b"FOREIGN"),
    "a body behind a HEAD": ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n", b"FOREIGN"),
    "an answer behind a HEAD": ("HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\n", whole(b"FOREIGN")),
}


async def others_get_their_own(house: House, count: int = 3) -> None:
    for number in range(count):
        own = b"own %d" % number
        assert await house.body(answers(whole(own))) == (200, own)


async def has_its_answer(answer: Answer, wire: bytes) -> None:
    assert answer.head.status == int(wire[9:12])
    assert await answer.to_end() == (b"mine" if b"mine" in wire else b"")
    assert answer.end is End.COMPLETE


@pytest.mark.parametrize("surplus", SURPLUS)
async def test_surplus_in_one_piece_with_the_answer_reaches_no_client(house: House, surplus: str) -> None:
    method, wire, more = SURPLUS[surplus]
    for _ in range(3):
        async with house.ask(answers(wire + more), method=method) as downstream:
            await has_its_answer(await downstream.answer(method), wire)
        await others_get_their_own(house, 2)


@pytest.mark.parametrize("surplus", SURPLUS)
async def test_surplus_on_an_idle_connection_reaches_no_client(house: House, surplus: str) -> None:
    method, wire, more = SURPLUS[surplus]
    answered, said, over = threading.Event(), threading.Event(), threading.Event()

    def scene(connection: Connection, _head: bytes) -> None:
        connection.send(wire)
        answered.wait(GUARD_SECONDS)  # by now the connection waits for the next request
        with contextlib.suppress(OSError):  # it may be closed by now, which is fine
            connection.send(more)
        said.set()
        with contextlib.suppress(OSError):
            while connection.read():
                pass
        over.set()

    async with house.ask(scene, method=method) as downstream:
        await has_its_answer(await downstream.answer(method), wire)
        answered.set()
    await house.until(said.is_set)
    await others_get_their_own(house)
    await house.until(over.is_set)  # the connection is closed, and not only avoided


@pytest.mark.parametrize("surplus", ["a second answer", "half a second answer", "a body behind a 204"])
async def test_surplus_that_arrives_with_the_next_request_reaches_no_client(house: House, surplus: str) -> None:
    """The gateway is stopped while both arrive, so that it finds them at the same time."""
    method, wire, more = SURPLUS[surplus]
    for _ in range(5):
        speak, said = threading.Event(), threading.Event()

        def scene(connection: Connection, _head: bytes, speak: threading.Event = speak, said: threading.Event = said) -> None:
            connection.send(wire)
            speak.wait(GUARD_SECONDS)
            connection.send(more)
            said.set()

        async with house.ask(scene, method=method) as downstream:
            await has_its_answer(await downstream.answer(method), wire)
        house.subject.process.send_signal(signal.SIGSTOP)
        try:
            async with house.ask(answers(whole(b"own"))) as downstream:
                speak.set()
                await house.until(said.is_set)
                house.subject.process.send_signal(signal.SIGCONT)
                answer = await downstream.answer()
                assert (answer.head.status, await answer.to_end()) == (200, b"own")
        finally:
            house.subject.process.send_signal(signal.SIGCONT)
        await others_get_their_own(house, 1)


# An upstream that answers before it has read the request

EARLY: dict[str, tuple[int, bytes]] = {
    "a refusal": (413, b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large"),
    "a stream": (200, STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("early", EARLY)
async def test_answer_that_comes_before_a_large_request_is_read_is_delivered(house: House, early: str) -> None:
    status, wire = EARLY[early]
    upload = b"x" * 3_000_000

    def scene(connection: Connection, _head: bytes) -> None:
        connection.send(wire)
        raise ConnectionResetError  # closed with most of the request unread, which the kernel answers with RST

    async def upload_once() -> None:
        async with house.ask(scene, method="POST", headers=(("Content-Length", str(len(upload))),)) as downstream:
            sending = asyncio.create_task(downstream.send(upload))
            answer = await downstream.answer("POST")
            assert answer.head.status == status, bytes(await answer.to_end())
            assert await answer.to_end() == (b"too large" if status == 413 else b"data: 1\n\n")
            assert answer.end is End.COMPLETE
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    for _ in range(8):
        await all_hold({f"upload {number}": upload_once() for number in range(MOST_STREAMS - 2)})


# An upstream that detects only a failed write


def drip(connection: Connection, _head: bytes) -> None:
    """Send events for as long as they can be written."""
    connection.send(STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.send(b"9\r\ndata: 1\n\n\r\n")
        time.sleep(0.02)


@pytest.mark.parametrize("path", ["/direct", "/orphan", "/shared"])
async def test_upstream_that_detects_only_failed_writes_is_reset_when_its_client_disconnects(house: House, path: str) -> None:
    await house.until(lambda: house.upstream.open <= 1)
    before = house.upstream.open
    for _ in range(5):
        async with house.ask(drip, path) as downstream:
            await (await downstream.answer()).receive(9)
        await house.until(lambda: house.upstream.open <= before)


async def test_deleting_a_kept_stream_ends_an_upstream_that_detects_only_failed_writes(house: House) -> None:
    await house.until(lambda: house.upstream.open <= 1)
    before = house.upstream.open
    async with house.ask(drip, "/kept", "POST", body=b"{}") as downstream:
        answer = await downstream.answer()
        await answer.receive(9)
        stream = answer.head.value("Stream-Id")
        async with Downstream(house.subject.port) as other:
            await other.ask(f"/streams/{stream}", "DELETE")
            assert (await other.answer("DELETE")).head.status == 204
        await house.until(lambda: house.upstream.open <= before)


async def test_successive_clients_leave_no_more_upstream_connections_than_allowed_streams(house: House) -> None:
    """Count the gateway's own sockets: how soon a server notices a failed write is the server's matter."""
    gateway, port = psutil.Process(house.subject.process.pid), urlsplit(house.upstream.url).port
    most = 0
    for _ in range(5 * MOST_STREAMS):
        async with house.ask(drip) as downstream:
            await (await downstream.answer()).receive(9)
            most = max(most, len([each for each in gateway.net_connections("tcp") if each.raddr and each.raddr.port == port]))
    assert 0 < most <= MOST_STREAMS + 1  # and the idle one
    await house.until(lambda: house.upstream.open <= 1)


@pytest.mark.parametrize("path", ["/direct", "/orphan", "/shared"])
async def test_silent_upstream_is_reset_when_its_client_disconnects(house: House, path: str) -> None:
    ends: list[int] = []

    def scene(connection: Connection, _head: bytes) -> None:
        connection.send(STREAM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        poll = select.poll()
        poll.register(connection.socket, select.POLLRDHUP)
        ends.extend(event for _, event in poll.poll(1000 * AT_ONCE_SECONDS))
        raise ConnectionResetError

    async with house.ask(scene, path) as downstream:
        await (await downstream.answer()).receive(9)
    await house.until(lambda: bool(ends))
    assert ends[0] & select.POLLHUP, "a FIN, after which the upstream may continue for long, instead of an RST"
