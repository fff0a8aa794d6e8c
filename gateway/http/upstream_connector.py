"""Kept connections to upstreams, which are checked before reuse.

This leans on internals of aiohttp (`_get`, `_conns`), which tests/gateway/test_upstream_connector.py guards.
"""

import select

from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from .retrying_connector import RetryingConnector
from .tls_connector import TlsConnector


class UpstreamConnector(RetryingConnector, TlsConnector):
    """A connector to upstreams over TCP and TLS that keeps connections."""

    def _keeps(self, key: object) -> bool:
        return key in self._conns

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


def _is_readable(connection: Connection) -> bool:
    transport = connection.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
