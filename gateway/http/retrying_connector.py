"""Connecting to upstreams that are down is retried."""

import asyncio
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout

from .upstream_errors import Drained

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


class RetryingConnector(aiohttp.TCPConnector):
    """A connector to upstreams.

    A failed connection is retried for `timeout.connect` seconds. This holds for every method, because nothing of the request has been sent
    yet. All requests to one upstream share the attempts. Each may take `timeout.sock_connect` seconds, and resolves the host again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._outages: dict[object, _Outage] = {}
        self._waits: set[asyncio.Timeout] = set()
        self._draining = False

    def stop_waiting(self) -> None:
        """Raise Drained in every request that waits for an upstream, now or later."""
        self._draining = True
        for wait in self._waits:
            wait.reschedule(0.0)

    def _keeps(self, key: object) -> bool:
        """Whether there is an idle connection."""
        return False

    async def connect(self, req: ClientRequest, *args: Any, **options: Any) -> Any:
        """Return a connection. Raises the exception of the newest attempt if there is none in time, or TimeoutError if it hung."""
        key = req.connection_key
        loop = asyncio.get_running_loop()
        end = loop.time() + (timeout_of(*args, *options.values()).connect or 0.0)
        while True:
            outage = self._outages.get(key)
            if outage is None or self._keeps(key):
                try:
                    return await self._attempt(req, *args, **options)
                except aiohttp.ClientSSLError:
                    raise  # a retry does not repair a certificate
                except aiohttp.ClientConnectorError as error:
                    if loop.time() >= end:
                        raise
                    outage = self._outages.setdefault(key, _Outage(error))
            connection = await self._wait(outage, end, req, *args, **options)
            if connection is not None:
                return connection

    async def _attempt(self, req: ClientRequest, *args: Any, **options: Any) -> Any:
        try:
            return await super().connect(req, *args, **options)
        except (aiohttp.ClientConnectorError, TimeoutError):
            self._forget_address(req)
            raise

    def _forget_address(self, req: ClientRequest) -> None:
        """Resolve the host again next time: its address may have changed."""
        if req.url.raw_host is not None and req.url.port is not None:
            self.clear_dns_cache(req.url.raw_host, req.url.port)

    async def _wait(self, outage: _Outage, end: float, req: ClientRequest, *args: Any, **options: Any) -> Any:
        """Return a connection, or None if another request has reached the upstream."""
        if self._draining:
            raise Drained
        outage.waiting += 1
        wait = asyncio.timeout_at(end)
        try:
            async with wait:
                self._waits.add(wait)
                async with outage.attempting:
                    return await self._reconnect(outage, req, *args, **options)
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

    async def _reconnect(self, outage: _Outage, req: ClientRequest, *args: Any, **options: Any) -> Any:
        while self._outages.get(req.connection_key) is outage:
            await asyncio.sleep(outage.pause_seconds)
            try:
                connection = await self._attempt(req, *args, **options)
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


def timeout_of(*arguments: object) -> ClientTimeout:
    """Return the time limits among the arguments that aiohttp passes to a connector."""
    return next((each for each in arguments if isinstance(each, ClientTimeout)), ClientTimeout())
