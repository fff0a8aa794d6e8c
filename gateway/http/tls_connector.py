"""Connect to upstreams over the gateway's own TLS, in place of the event loop's.

This relies on an internal of aiohttp (`_wrap_create_connection`), which tests/gateway/test_upstream_tls.py guards.
"""

from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import ceil_timeout

from .tls_transport import TlsTransport
from .upstream_protocol import UpstreamProtocol


class TlsConnector(aiohttp.TCPConnector):
    """Connect over TCP and TLS, without a limit. `make_protocol` returns the receiver of the answers."""

    def __init__(self, make_protocol: Callable[[], UpstreamProtocol], **options: Any) -> None:
        super().__init__(limit=0, **options)
        self._make_protocol = make_protocol
        self._factory = make_protocol  # type: ignore[assignment]

    async def _wrap_create_connection(
        self, *args: Any, req: ClientRequest, timeout: ClientTimeout, **options: Any
    ) -> tuple[Any, ResponseHandler]:
        context, server_hostname = options.pop("ssl"), options.pop("server_hostname")
        if context is None:
            return await super()._wrap_create_connection(*args, req=req, timeout=timeout, **options)
        protocol = self._make_protocol()
        transport = TlsTransport(protocol, context, server_hostname)
        async with ceil_timeout(timeout.sock_connect, ceil_threshold=timeout.ceil_threshold):  # for TCP and the handshake together
            await super()._wrap_create_connection(lambda: transport, req=req, timeout=timeout, **options)
            await transport.shake_hands(req.connection_key)
        return transport, protocol
