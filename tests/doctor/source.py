"""Serve live events over real sockets. Each event has a fixed time, so all connections get the same events at the same moments."""

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self

INTERVAL_SECONDS = 0.06
_PADDING = b"x" * 300


class Source:
    """An HTTP/1.1 server, which answers HTTP/1.0 requests without chunks.

    The end of the path selects the stream: `live` (events with IDs, from now or after Last-Event-ID), `crlf` (the same with CRLF and with
    U+2028 within the data), `ignoring` (ignores Last-Event-ID and starts again at the first event), `quiet` (one event, then nothing),
    `beating` (one event, then heartbeats).
    """

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            kind = first.split(" ")[1].partition("?")[0].rpartition("/")[2]
            chunked = "HTTP/1.0" not in first
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: close\r\n")
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
            await self._stream(kind, int(headers.get("last-event-id") or -1), chunked, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _stream(self, kind: str, last_event_id: int, chunked: bool, writer: asyncio.StreamWriter) -> None:
        number = last_event_id + 1 if last_event_id >= 0 else int((time.monotonic() - self._begin) / INTERVAL_SECONDS)
        if kind in ("ignoring", "quiet", "beating"):
            number = 0
        while True:
            await asyncio.sleep(max(0.0, self._begin + number * INTERVAL_SECONDS - time.monotonic()))
            block = _block(kind, number)
            writer.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            await writer.drain()
            number += 1
            while kind == "quiet":
                await asyncio.sleep(60)
            while kind == "beating":
                await asyncio.sleep(0.3)
                writer.write(b"2\r\n:\n\r\n" if chunked else b":\n")
                await writer.drain()


def _block(kind: str, number: int) -> bytes:
    text = "\u2028".encode() if kind == "crlf" else b" "
    block = b"retry: 2000\nid: %d\ndata: event%snumber %d\ndata: %s\n\n" % (number, text, number, _PADDING)
    return block.replace(b"\n", b"\r\n") if kind == "crlf" else block
