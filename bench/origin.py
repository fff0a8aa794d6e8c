"""The origin of the measured event streams: an HTTP/1.1 server that sends numbered events, as the request's query says.

rate=20     events per second; without it as many as the connection takes
size=200    bytes of an event
count=50    ends the response after this number of events, and keeps the connection; without it the stream never ends
cut=7       HTTP chunks and writes end at random bytes, with this seed; needs a rate
"""

import argparse
import asyncio
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, urlsplit

import httptools
import uvloop

from .alarm import Alarm
from .events import bound_buffer, render, render_chunks

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"
_BATCH = 64
"""Events of one write when flat out."""
_BATCHES_PER_TURN = 8
"""Writes after which a flat-out stream yields the loop to others."""

_MOST_BEHIND_NS = 1_000_000_000
"""A paced stream that is later than this skips events."""


@dataclass(frozen=True, slots=True)
class Order:
    """The parameters of one request."""

    rate: float
    size: int
    count: int
    cut: int

    @classmethod
    def read(cls, url: bytes) -> "Order":
        """Parse the query of `url`."""
        query = {name: values[-1] for name, values in parse_qs(urlsplit(url.decode()).query).items()}
        return cls(float(query.get("rate", 0)), int(query.get("size", 200)), int(query.get("count", 0)), int(query.get("cut", 0)))


class FlatStream:
    """Sends as much as the connection takes."""

    def __init__(self, transport: asyncio.WriteTransport, order: Order, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._order = order
        self._on_end = on_end
        self._number = 0
        self.paused = False
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Handle | None = None

    def start(self) -> None:
        """Send the first events."""
        self._send()

    def resume(self) -> None:
        """Continue after the transport has drained."""
        self.paused = False
        self._send()

    def stop(self) -> None:
        """Stop sending."""
        if self._turn is not None:
            self._turn.cancel()

    def _send(self) -> None:
        order = self._order
        for _ in range(_BATCHES_PER_TURN):
            count = min(_BATCH, order.count - self._number) if order.count else _BATCH
            self._transport.write(render_chunks(self._number, count, order.size))
            self._number += count
            if self._number == order.count:
                self._transport.write(_END)
                self._on_end()
                return
            if self.paused:
                return
        self._turn = self._loop.call_soon(self._send)


class PacedStream:
    """Sends `rate` events per second. Streams start at random moments of the period, so that they do not send in step."""

    def __init__(self, transport: asyncio.WriteTransport, order: Order, alarm: Alarm, on_end: Callable[[], None]) -> None:
        self._transport = transport
        self._order = order
        self._alarm = alarm
        self._on_end = on_end
        self._number = 0
        self._period_ns = round(1e9 / order.rate)
        self._stopped = False
        self.paused = False

    def start(self) -> None:
        """Schedule the first event."""
        self._due_ns = time.monotonic_ns() + random.randrange(self._period_ns)
        self._alarm.call_at(self._due_ns, self._send)

    def resume(self) -> None:
        """Continue after the transport has drained."""
        self.paused = False

    def stop(self) -> None:
        """Stop sending."""
        self._stopped = True

    def _send(self) -> None:
        order = self._order
        if self._stopped:
            return
        if not self.paused:
            event = render(self._number, order.size)
            self._number += 1
            last = self._number == order.count
            self._write(event, last)
            if last:
                self._on_end()
                return
        self._due_ns = max(self._due_ns + self._period_ns, time.monotonic_ns() - _MOST_BEHIND_NS)
        self._alarm.call_at(self._due_ns, self._send)

    def _write(self, event: bytes, last: bool) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event) + (_END if last else b""))


class CutStream(PacedStream):
    """Paced, with HTTP chunks and writes that end at random bytes: the rest goes with a later event."""

    def __init__(self, transport: asyncio.WriteTransport, order: Order, alarm: Alarm, on_end: Callable[[], None]) -> None:
        super().__init__(transport, order, alarm, on_end)
        self._random = random.Random(order.cut)
        self._body = bytearray()  # not yet in a chunk
        self._wire = bytearray()  # in chunks, not yet written

    def _write(self, event: bytes, last: bool) -> None:
        self._body += event
        while self._body and (last or self._random.random() < 0.7):
            cut = self._random.randint(1, 2 * len(event))
            chunk = bytes(self._body[:cut])
            del self._body[:cut]
            extension = b";cut=yes" if self._random.random() < 0.1 else b""
            self._wire += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
        cut = len(self._wire) if last else self._random.randint(0, len(self._wire))
        self._transport.write(bytes(self._wire[:cut]) + (_END if last else b""))
        del self._wire[:cut]


class Connection(asyncio.Protocol):
    """One connection with any number of successive requests."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._stream: FlatStream | PacedStream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        bound_buffer(self._transport, socket.SO_SNDBUF)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Handle httptools' start of a request."""
        self._url = b""

    def on_url(self, url: bytes) -> None:
        """Handle httptools' piece of the request's target."""
        self._url += url

    def on_message_complete(self) -> None:
        """Handle httptools' end of the request: start the response."""
        order = Order.read(self._url)
        self._transport.write(_HEAD)
        if order.rate:
            self._stream = (CutStream if order.cut else PacedStream)(self._transport, order, self._alarm, self._ended)
        else:
            self._stream = FlatStream(self._transport, order, self._ended)
        self._stream.start()

    def _ended(self) -> None:
        self._stream = None

    def pause_writing(self) -> None:
        if self._stream is not None:
            self._stream.paused = True

    def resume_writing(self) -> None:
        if self._stream is not None:
            self._stream.resume()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.stop()


async def _serve(port: int) -> None:
    alarm = Alarm()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(alarm), "127.0.0.1", port, backlog=16384)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m bench.origin", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))
