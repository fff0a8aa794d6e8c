"""Send the same numbered events to all subscribers: the upstream of the measured hubs and, with all subscribers on it, their floor.

Publishing begins with a request for `/begin`: `ahead` events at full speed, then `rate` events a second. For a hub that takes events by
POST (`--post-to`) they are also posted, one after the other.
"""

import argparse
import asyncio
import socket
import time
from collections import deque
from typing import cast

import uvloop

from .alarm import Alarm
from .events import bound_buffer, render_with_id

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
_BEGUN = b"HTTP/1.1 204 No Content\r\n\r\n"
_AHEAD_PER_TURN = 25
_AHEAD_TURN_NS = 2_000_000
_MOST_BEHIND_NS = 1_000_000_000


class Broadcast:
    """Numbers the events and sends each to all subscribers."""

    def __init__(self, rate: float, size: int, ahead: int) -> None:
        self._period_ns = round(1e9 / rate) if rate else 0
        self._size = size
        self._ahead = ahead
        self._number = 0
        self._begun = False
        self._alarm = Alarm()
        self.connections: set[Connection] = set()
        self.poster: Poster | None = None

    def begin(self) -> None:
        """Start publishing; a second call does nothing."""
        if not self._begun:
            self._begun = True
            self._due_ns = time.monotonic_ns()
            self._publish()

    def _publish(self) -> None:
        ahead = self._number < self._ahead
        for _ in range(_AHEAD_PER_TURN if ahead else 1 if self._period_ns else 0):
            self._send(render_with_id(self._number, self._size))
            self._number += 1
        if ahead or self._period_ns:
            self._due_ns = max(self._due_ns + (_AHEAD_TURN_NS if ahead else self._period_ns), time.monotonic_ns() - _MOST_BEHIND_NS)
            self._alarm.call_at(self._due_ns, self._publish)

    def _send(self, event: bytes) -> None:
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        for connection in self.connections:
            connection.transport.write(chunk)
        if self.poster is not None:
            self.poster.post(event)


class Connection(asyncio.Protocol):
    """One subscriber. Unread data is buffered without a limit: no history, no heartbeats, only the writes."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        bound_buffer(self.transport, socket.SO_SNDBUF)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            if self._head.startswith(b"GET /begin "):
                self.transport.write(_BEGUN)
                self._broadcast.begin()
            else:
                self.transport.write(_HEAD)
                self._broadcast.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._broadcast.connections.discard(self)


class Poster(asyncio.Protocol):
    """Posts the data of events on one kept-alive connection, each when the previous one was answered."""

    def __init__(self, port: int, path: str) -> None:
        self._request = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: %d\r\n\r\n".encode()
        self._waiting: deque[bytes] = deque()
        self._busy = False
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def post(self, event: bytes) -> None:
        """Post the data of `event` when its turn comes."""
        data = event.partition(b"\ndata: ")[2].rstrip(b"\n")
        self._waiting.append(self._request % len(data) + data)
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if end and len(body) >= int(length or 0):
            self._answer = b""
            self._busy = False
            self._next()


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    broadcast = Broadcast(options.rate, options.size, options.ahead)
    server = await loop.create_server(lambda: Connection(broadcast), "127.0.0.1", options.port, backlog=16384)
    if options.post_to:
        port, _, path = options.post_to.partition("/")
        _, broadcast.poster = await loop.create_connection(lambda: Poster(port, f"/{path}"), "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.broadcast", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="events per second; 0: none")
    parser.add_argument("--size", type=int, default=200, help="bytes of an event")
    parser.add_argument("--ahead", type=int, default=0, help="events before these, at full speed")
    parser.add_argument("--post-to", default="", metavar="PORT/PATH", help="port and path of a hub on this machine")
    uvloop.run(_serve(parser.parse_args()))
