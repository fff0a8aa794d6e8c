"""Connections to upstreams: idle ones are checked before reuse, and connecting to an upstream that is down is retried.

This leans on internals of aiohttp (`_get`, `_conns`), which tests/gateway/test_upstream_connector.py guards.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from .tls_transport import TlsConnector
from .upstream_errors import Drained
from .upstream_protocol import UpstreamProtocol

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 0.5


class _Outage:
    """An upstream that refuses connections while requests wait for it. Only the holder of `attempting` tries to connect."""

    __slots__ = ("attempting", "error", "pause_seconds", "waiting")

    def __init__(self, error: aiohttp.ClientConnectorError) -> None:
        self.attempting = asyncio.Lock()
        self.error = error
        """The exception of the newest attempt."""
        self.pause_seconds = _FIRST_PAUSE_SECONDS
        self.waiting = 0


class UpstreamConnector(TlsConnector):
    """A connector to upstreams over TCP and TLS.

    A failed connection is retried for `timeout.connect` seconds. This holds for every method, because nothing of the request has been sent
    yet. All requests to one upstream share the attempts. Each may take `timeout.sock_connect` seconds, and resolves the host again.
    """

    def __init__(self, make_protocol: Callable[[], UpstreamProtocol], **options: Any) -> None:
        super().__init__(make_protocol, **options)
        self._outages: dict[ConnectionKey, _Outage] = {}
        self._waits: set[asyncio.Timeout] = set()
        self._draining = False

    def stop_waiting(self) -> None:
        """Raise Drained in every request that waits for an upstream, now or later."""
        self._draining = True
        for wait in self._waits:
            wait.reschedule(0.0)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        """Return an idle connection, unless its end or unsolicited bytes (RFC 9112 section 9.2) have arrived on it.

        The one that was used last comes first. aiohttp uses them in turn, so a few requests per second would keep as many connections
        open as the busiest moment needed.
        """
        while True:
            if kept := self._conns.get(key):
                kept.rotate(1)
            connection = await super()._get(key, traces)
            if connection is None or not _is_readable(connection):
                return connection
            connection.close()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        """Return a connection. Raises the exception of the newest attempt if there is none in time, or TimeoutError if it hung."""
        key = req.connection_key
        end = self._loop.time() + (timeout.connect or 0.0)
        while True:
            outage = self._outages.get(key)
            if outage is None or key in self._conns:
                try:
                    return await self._attempt(req, traces, timeout)
                except aiohttp.ClientSSLError:
                    raise  # a retry does not repair a certificate
                except aiohttp.ClientConnectorError as error:
                    if self._loop.time() >= end:
                        raise
                    outage = self._outages.setdefault(key, _Outage(error))
            connection = await self._wait(outage, end, req, traces, timeout)
            if connection is not None:
                return connection

    async def _attempt(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        try:
            return await super().connect(req, traces, timeout)
        except (aiohttp.ClientConnectorError, TimeoutError):
            self._forget_address(req)
            raise

    def _forget_address(self, req: ClientRequest) -> None:
        """Resolve the host again next time: its address may have changed."""
        if req.url.raw_host is not None and req.url.port is not None:
            self.clear_dns_cache(req.url.raw_host, req.url.port)

    async def _wait(
        self, outage: _Outage, end: float, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection | None:
        """Return a connection, or None if another request has reached the upstream."""
        if self._draining:
            raise Drained
        outage.waiting += 1
        wait = asyncio.timeout_at(end)
        try:
            async with wait:
                self._waits.add(wait)
                async with outage.attempting:
                    return await self._reconnect(outage, req, traces, timeout)
        except TimeoutError:
            if not wait.expired():
                raise
            if self._draining:
                raise Drained from None
            raise type(outage.error)(req.connection_key, outage.error.os_error) from None  # a separate exception for each request
        finally:
            self._waits.discard(wait)
            outage.waiting -= 1
            if not outage.waiting and self._outages.get(req.connection_key) is outage:
                del self._outages[req.connection_key]

    async def _reconnect(self, outage: _Outage, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection | None:
        while self._outages.get(req.connection_key) is outage:
            await asyncio.sleep(outage.pause_seconds)
            try:
                connection = await self._attempt(req, traces, timeout)
            except aiohttp.ClientSSLError:
                self._outages.pop(req.connection_key, None)  # the upstream is up
                raise
            except aiohttp.ClientConnectorError as error:
                outage.error = error
                outage.pause_seconds = min(2 * outage.pause_seconds, _LONGEST_PAUSE_SECONDS)
            else:
                self._outages.pop(req.connection_key, None)
                return connection
        return None


def _is_readable(connection: Connection) -> bool:
    transport = connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
