"""Read event streams through the server under test and check every event; print the results and the server's usage as JSON."""

import argparse
import asyncio
import json
import socket
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import cast

import httptools
import uvloop

from .events import Checker, bound_buffer
from .process_tree import Usage, usage

_BODY = b'{"stream": true, "messages": [{"role": "user", "content": "hello"}]}'
_OPEN_SECONDS = 20
"""The most seconds until each stream has begun."""


@dataclass(slots=True)
class Tally:
    """The common results of all connections."""

    latencies_ns: list[int] = field(default_factory=list)
    requests: int = 0
    request_ns: list[int] = field(default_factory=list)
    defects: Counter[str] = field(default_factory=Counter)
    closing: bool = False


class Stream(asyncio.Protocol):
    """One connection: it sends the request, and sends it again if responses end (`count`)."""

    def __init__(self, request: bytes, size: int, count: int, tally: Tally) -> None:
        self._request = request
        self._size = size
        self._count = count
        self._tally = tally
        self._checker = Checker(size)
        self._complete = True
        self._refused = False
        self.begun = asyncio.get_running_loop().create_future()
        self.events_before = 0

    @property
    def events(self) -> int:
        """The events of this connection, those of earlier responses included."""
        return self.events_before + self._checker.events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        bound_buffer(self.transport, socket.SO_RCVBUF)

    def send_request(self) -> None:
        """Request a response, after the previous one is complete."""
        self._parser = httptools.HttpResponseParser(self)
        self._complete = False
        self._asked = time.monotonic_ns()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._tally.defects["bad HTTP"] += 1
            self._complete = True
            self.transport.abort()
        if self._complete and not self._tally.closing and not self.transport.is_closing():
            self.send_request()

    def on_headers_complete(self) -> None:
        """Handle httptools' end of the head. A response other than 200 has no events to check."""
        self._refused = self._parser.get_status_code() != 200
        if self._refused:
            self._tally.defects[f"status {self._parser.get_status_code()}"] += 1

    def on_body(self, body: bytes) -> None:
        """Handle httptools' body bytes, without the HTTP chunking."""
        if self._refused:
            return
        sent = self._checker.feed(body)
        if sent:
            now = time.monotonic_ns()
            self._tally.latencies_ns += [now - then for then in sent]
        if self._checker.events and not self.begun.done():
            self.begun.set_result(None)

    def on_message_complete(self) -> None:
        """Handle httptools' end of the response."""
        self._complete = True
        self._tally.requests += 1
        self._tally.request_ns.append(time.monotonic_ns() - self._asked)
        if self._checker.events != self._count and not self._refused:
            self._tally.defects["wrong count"] += 1
        self.events_before += self._checker.events
        self._report()
        self._checker = Checker(self._size)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self._complete and not self._tally.closing:
            self._tally.defects["cut short"] += 1
            if self._checker.within_event:
                self._tally.defects["half"] += 1
        if not self.begun.done():
            self.begun.set_result(None)

    def _report(self) -> None:
        checker = self._checker
        for defect, number in (("lost", checker.lost), ("repeated", checker.repeated), ("corrupt", checker.corrupt)):
            if number:
                self._tally.defects[defect] += number
        if self._complete and checker.within_event:
            self._tally.defects["half"] += 1

    def close(self) -> None:
        """End the connection in the middle, and count its defects."""
        if not self._complete:
            self._report()
        self.transport.abort()


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    at: float
    events: int
    requests: int
    server: Usage

    @classmethod
    def take(cls, streams: list[Stream], tally: Tally, server_pid: int) -> "Reading":
        """Read all counters."""
        return cls(time.monotonic(), sum(stream.events for stream in streams), tally.requests, usage(server_pid))


async def _open(options: argparse.Namespace, request: bytes, tally: Tally) -> list[Stream]:
    loop = asyncio.get_running_loop()
    streams: list[Stream] = []
    for _ in range(options.streams):
        _, stream = await loop.create_connection(lambda: Stream(request, options.size, options.count, tally), "127.0.0.1", options.port)
        streams.append(stream)
    for stream in streams:
        stream.send_request()
    _, silent = await asyncio.wait([stream.begun for stream in streams], timeout=_OPEN_SECONDS)
    if silent:
        tally.defects["not begun"] = len(silent)
    return streams


def _request(port: int, path: str, post: bool) -> bytes:
    head = f"{'POST' if post else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
    if not post:
        return f"{head}\r\n".encode()
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY


def _percentiles(nanoseconds: list[int]) -> dict[str, float]:
    """Return median and 99th percentile in milliseconds; an empty dict for no values."""
    ordered = sorted(nanoseconds)
    return {f"p{part}": ordered[len(ordered) * part // 100] / 1e6 for part in (50, 99)} if ordered else {}


async def _measure(options: argparse.Namespace) -> dict[str, object]:
    tally = Tally()
    streams = await _open(options, _request(options.port, options.path, post=bool(options.count)), tally)
    await asyncio.sleep(options.warm_up)
    tally.latencies_ns.clear()
    tally.request_ns.clear()
    before = Reading.take(streams, tally, options.server_pid)
    each = [stream.events for stream in streams]
    await asyncio.sleep(options.seconds)
    after = Reading.take(streams, tally, options.server_pid)
    starved = sum(stream.events == events for stream, events in zip(streams, each, strict=True))
    if starved:
        tally.defects["starved streams"] = starved
    tally.closing = True
    for stream in streams:
        stream.close()
    return {
        "before": asdict(before),
        "after": asdict(after),
        "latency_ms": _percentiles(tally.request_ns if options.count else tally.latencies_ns),
        "defects": dict(tally.defects),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="bytes of an event")
    parser.add_argument("--count", type=int, default=0, help="events of a response; requests are then POST, one after the other")
    parser.add_argument("--warm-up", type=float, required=True, help="seconds")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    print(json.dumps(uvloop.run(_measure(parser.parse_args()))))
