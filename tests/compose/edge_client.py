"""A browser's side of the edge: streams over HTTP/1.1, HTTP/2 or HTTP/3, all open ones on one connection where possible."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import httpx
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset

from tests.kit.waiting import GUARD_SECONDS

Version = Literal["HTTP/1.1", "HTTP/2", "HTTP/3"]


class Cut(Exception):
    """The answer ended prematurely."""


@dataclass
class Stream:
    """An answer: its head, and its body as it arrives."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]
    """Raises Cut where the answer ends prematurely."""

    async def receive_until(self, end: bytes) -> bytes:
        """Read until `end` has come, and return the bytes so far."""
        received = b""
        async with asyncio.timeout(GUARD_SECONDS):
            while end not in received:
                received += await anext(self.pieces)
        return received

    async def to_end(self, pieces: list[bytes] | None = None) -> bytes:
        """Read to the end of the body, and return the bytes not read before; add them to `pieces` as they arrive."""
        pieces = [] if pieces is None else pieces
        async with asyncio.timeout(GUARD_SECONDS):
            async for piece in self.pieces:
                pieces.append(piece)  # the bytes before a cut must not be lost with it
        return b"".join(pieces)


class EdgeClient:
    """Opens streams on one connection."""

    @contextlib.asynccontextmanager
    async def open(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        """Send a GET and yield the answer when its head has come. Leaving the block cancels it."""
        raise NotImplementedError
        yield


class HttpxClient(EdgeClient):
    """HTTP/1.1 or HTTP/2."""

    def __init__(self, http: httpx.AsyncClient, version: Version) -> None:
        self._http = http
        self._version = version

    @contextlib.asynccontextmanager
    async def open(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        async with self._http.stream("GET", path, headers=headers, extensions={"sni_hostname": "localhost"}) as answer:
            assert answer.http_version == self._version
            yield Stream(answer.status_code, answer.headers, self._pieces(answer))

    @staticmethod
    async def _pieces(answer: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_raw():
                yield piece
        except httpx.RemoteProtocolError as error:
            raise Cut(str(error)) from error


@dataclass
class _Answer:
    headers: dict[str, str] = field(default_factory=dict)
    headed: asyncio.Event = field(default_factory=asyncio.Event)
    body: asyncio.Queue[bytes | Cut | None] = field(default_factory=asyncio.Queue)
    """Pieces, then None or the reason of the cut."""


class _Http3Protocol(QuicConnectionProtocol):
    """Sorts incoming data by stream."""

    answers: dict[int, _Answer]
    http: H3Connection

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case ProtocolNegotiated():
                self.answers = {}
                self.http = H3Connection(self._quic)
            case StreamReset(stream_id=number) if number in self.answers:
                self.answers[number].headed.set()
                self.answers[number].body.put_nowait(Cut(f"stream {number} was reset with {event.error_code:#x}"))
            case ConnectionTerminated():
                for answer in self.answers.values():
                    answer.headed.set()
                    answer.body.put_nowait(Cut(f"the connection ended: {event.reason_phrase or event.error_code}"))
        if hasattr(self, "http"):
            for part in self.http.handle_event(event):
                if isinstance(part, HeadersReceived | DataReceived):
                    self._take(part)

    def _take(self, part: HeadersReceived | DataReceived) -> None:
        answer = self.answers[part.stream_id]
        if isinstance(part, HeadersReceived):
            answer.headers |= {name.decode(): value.decode() for name, value in part.headers}
            answer.headed.set()
        elif part.data:
            answer.body.put_nowait(part.data)
        if part.stream_ended:
            answer.body.put_nowait(None)


class Http3Client(EdgeClient):
    """HTTP/3."""

    def __init__(self, protocol: _Http3Protocol, authority: str) -> None:
        self._protocol = protocol
        self._authority = authority

    @contextlib.asynccontextmanager
    async def open(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
        protocol = self._protocol
        number = protocol._quic.get_next_available_stream_id()
        answer = protocol.answers[number] = _Answer()
        fields = {":method": "GET", ":scheme": "https", ":authority": self._authority, ":path": path}
        fields |= {name.lower(): value for name, value in (headers or {}).items()}
        protocol.http.send_headers(number, [(name.encode(), value.encode()) for name, value in fields.items()], end_stream=True)
        protocol.transmit()
        async with asyncio.timeout(GUARD_SECONDS):
            await answer.headed.wait()
        yield Stream(int(answer.headers[":status"]), answer.headers, self._pieces(answer))

    @staticmethod
    async def _pieces(answer: _Answer) -> AsyncIterator[bytes]:
        while (piece := await answer.body.get()) is not None:
            if isinstance(piece, Cut):
                raise piece
            yield piece


@contextlib.asynccontextmanager
async def edge_client(version: Version, port: int, authority_file: Path, address: str = "127.0.0.1") -> AsyncIterator[EdgeClient]:
    """Connect to the edge at `address` as `localhost`; `authority_file` is the certificate of the authority that signed the edge's."""
    host = f"localhost:{port}"
    if version == "HTTP/3":
        configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", cafile=str(authority_file))
        async with connect(address, port, configuration=configuration, create_protocol=_Http3Protocol) as protocol:
            yield Http3Client(cast(_Http3Protocol, protocol), host)
        return
    async with httpx.AsyncClient(
        base_url=f"https://{address}:{port}",
        headers={"Host": host},
        http1=version == "HTTP/1.1",
        http2=version == "HTTP/2",
        verify=ssl.create_default_context(cafile=authority_file),
        limits=httpx.Limits(max_connections=1 if version == "HTTP/2" else None),
        timeout=GUARD_SECONDS,
        trust_env=False,
    ) as http:
        yield HttpxClient(http, version)
