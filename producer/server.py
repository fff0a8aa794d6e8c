"""Runs the app under uvicorn, so that it stops well and nobody can hold a connection by not reading."""

import asyncio
import socket
from typing import cast

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .drain import Drain

_log = structlog.get_logger()

_KEEP_ALIVE_SECONDS = 75
"""Longer than proxies keep idle connections to us (aiohttp 15 s, nginx 60 s), so that none reuses one that we are just closing."""


class Server(uvicorn.Server):
    """A uvicorn server that begins `drain` when it stops, before it waits for open responses to end."""

    def __init__(self, app: ASGIApp, drain: Drain, *, host: str, port: int, send_timeout_seconds: float, drain_seconds: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
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


class StallLimitedProtocol(HttpToolsProtocol):
    """HTTP/1.1 that aborts a connection whose peer has let the write buffer stand above its low-water mark for too long.

    uvicorn itself would wait for ever, also after the response has been given up: a transport closes only when its buffer is empty.
    """

    stall_seconds: float
    """How long a peer may read nothing, or too little."""

    stall_seconds_in_drain: float
    """The same when the server stops."""

    _abort_timer: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_in(self.stall_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_timer()

    def shutdown(self) -> None:
        super().shutdown()
        if self._abort_timer is not None:
            self._abort_in(min(self.stall_seconds, self.stall_seconds_in_drain))

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _abort_in(self, seconds: float) -> None:
        self._forget_timer()
        self._abort_timer = self.loop.call_later(seconds, self.transport.abort)

    def _forget_timer(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None


def _limit_stalls(seconds: float, seconds_in_drain: float) -> type[asyncio.Protocol]:
    """Gives the protocol class with these limits: uvicorn makes its instances and passes nothing of ours on."""
    limits = {"stall_seconds": seconds, "stall_seconds_in_drain": seconds_in_drain}
    return cast(type[asyncio.Protocol], type("LimitedProtocol", (StallLimitedProtocol,), limits))
