"""Run the app under uvicorn, with a drain, and with a limit on connections whose client does not read."""

import asyncio
import socket
from array import array
from collections.abc import Callable
from typing import Any, cast

import httptools
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .drain import Drain
from .responses import STALLED

_log = structlog.get_logger()

_KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections to us (aiohttp 15 s, nginx 60 s), so that none reuses a connection that is being closed."""

_LAST_CHANCE_SECONDS = 10
"""The seconds that a disconnected peer may still read what was sent before."""

_BODY_FIELDS = (b"content-length", b"transfer-encoding")


class UpgradeIgnoringProtocol(HttpToolsProtocol):
    """Read requests with `Upgrade` like all others: Java's HttpClient and `curl --http2` offer h2c with their first request.

    httptools ends such a request after its head and takes the body for the next one. So it is fed another head there, with the same
    length and without `Upgrade`, whose body goes to the request.
    """

    reads_own_head = False
    """Whether the parser is reading that other head."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def on_headers_complete(self) -> None:
        if not self.reads_own_head:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()


class _Parser(httptools.HttpRequestParser):
    def __init__(self, protocol: UpgradeIgnoringProtocol) -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._feed_own_head()
                data = data[upgrade.args[0] :]
            else:
                return

    def _feed_own_head(self) -> None:
        fields = [b"%s: %s\r\n" % (name, value) for name, value in self._protocol.headers if name in _BODY_FIELDS]
        self._protocol.reads_own_head = True
        try:
            super().feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(fields))
        finally:
            self._protocol.reads_own_head = False


class Server(uvicorn.Server):
    """A uvicorn server that begins `drain` when it stops, before it waits for open responses to end."""

    def __init__(self, app: ASGIApp, drain: Drain, *, host: str, port: int, send_timeout_seconds: float, drain_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=_limit_stalls(send_timeout_seconds, drain_seconds / 2),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=drain_seconds,
            )
        )
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in self.servers:
            for listening in listener.sockets:
                host, port = listening.getsockname()[:2]
                _log.info("listening", host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.begin()
        await super().shutdown(sockets)


class StallLimitedProtocol(UpgradeIgnoringProtocol):
    """HTTP/1.1 that closes a connection whose write buffer stays above its low-water mark for too long.

    First the response ends as if the peer had left: the buffer ends at the end of a block, so a peer that reads again gets whole events.
    If it still does not read, the connection is aborted. uvicorn itself would wait for ever: a transport closes when its buffer is empty.
    """

    stall_seconds: float
    """The seconds that a peer may read nothing, or too little."""

    stall_seconds_in_drain: float
    """The same when the server stops."""

    _timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time(self.stall_seconds, self._give_up)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_timer()

    def shutdown(self) -> None:
        super().shutdown()
        if self._timer is not None:
            self._time(min(self.stall_seconds, self.stall_seconds_in_drain), self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.scope["state"][STALLED] = True
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.flow.resume_writing()  # the waiting sender sees that the peer has left
        self.transport.close()
        self._time(min(self.stall_seconds, _LAST_CHANCE_SECONDS), self.transport.abort)

    def _time(self, seconds: float, end: Callable[[], None]) -> None:
        self._forget_timer()
        self._timer = self.loop.call_later(seconds, end)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _limit_stalls(seconds: float, seconds_in_drain: float) -> type[asyncio.Protocol]:
    """Return the protocol class with these limits: uvicorn creates its instances and passes no arguments of ours."""
    limits = {"stall_seconds": seconds, "stall_seconds_in_drain": seconds_in_drain}
    return cast(type[asyncio.Protocol], type("LimitedProtocol", (StallLimitedProtocol,), limits))
