"""Choose how this process uses aiohttp: by internals, which is fast, or by its documented interface if they are not as expected.

The modules of either path are imported when they are needed, because those of the fast one may not even load.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web

from ..policy.refusal import Reason, Refusal
from ..policy.trusted_proxies import TrustedProxies
from .asking import UpstreamAnswer, UpstreamClient
from .connection import ClientServer
from .headers import head_limits, max_head_bytes
from .internals import unexpected
from .receiver import Receiver

_SKIPPED_FIELDS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def open_session(
    *, keepalive_seconds: float, max_header_bytes: int, unix_path: str = "", note_latency: Callable[[float], object] | None = None
) -> aiohttp.ClientSession:
    """Return the client session of the gateway: no cookies, no decoding, no limit of connections, no time limits of its own.

    With `unix_path` it connects to that socket, whatever a URL says. `note_latency` is called with the seconds that a timed read took; the
    documented path times none, and keeps no connection.
    """
    if unexpected():
        from . import documented_client

        return documented_client.open_session(
            max_header_bytes=max_header_bytes,
            unix_path=unix_path,
            auto_decompress=False,
            skip_auto_headers=_SKIPPED_FIELDS,
            timeout=aiohttp.ClientTimeout(total=None),
        )
    from . import upstream

    return upstream.open_session(
        keepalive_seconds=keepalive_seconds, max_header_bytes=max_header_bytes, unix_path=unix_path, note_latency=note_latency
    )


def open_following_session(*, max_header_bytes: int) -> aiohttp.ClientSession:
    """Return the session that follows shared streams: one request per connection, and none is repeated at once."""
    if unexpected():
        from . import documented_client

        return documented_client.open_session(max_header_bytes=max_header_bytes, headers={"User-Agent": "gateway"})
    from . import upstream

    return upstream.open_following_session(max_header_bytes=max_header_bytes)


def open_client(session: aiohttp.ClientSession) -> UpstreamClient:
    """Return what asks upstreams over a session of `open_session`."""
    if unexpected():
        from .documented_client import DocumentedClient

        return DocumentedClient(session)
    from .upstream_client import UpstreamClient as FastClient

    return FastClient(session)


def count_connections(session: aiohttp.ClientSession) -> int:
    """Return how many connections a session has, kept ones included."""
    if unexpected():
        from . import documented_client

        return documented_client.count_connections(session)
    from . import upstream

    return upstream.count_connections(session)


def attach(response: UpstreamAnswer, receiver: Receiver) -> None:
    """Send the body of `response` to `receiver`, in this call if all of it is here."""
    if not unexpected():
        from .upstream import attach as attach_fast
        from .upstream_client import Answer

        if isinstance(response, Answer | aiohttp.ClientResponse) and attach_fast(response, receiver):
            return
    from .pump import attach as attach_pump

    attach_pump(response, receiver)


def make_server(
    handler: Callable[[web.BaseRequest], Any],
    *,
    trusted: TrustedProxies,
    keepalive_seconds: float,
    head_seconds: float,
    max_header_bytes: int,
    rejected: Callable[[Reason, int], None],
    full: Callable[[], Refusal | None],
) -> ClientServer:
    """Return the server of the public port. `rejected` is told what is refused before `handler` sees it."""
    requests: dict[str, Any] = {"loop": asyncio.get_running_loop(), "trusted": trusted}
    options: dict[str, Any] = {
        "keepalive_timeout": keepalive_seconds,
        "head_seconds": head_seconds,
        "max_head_bytes": max_head_bytes(max_header_bytes),
        "rejected": rejected,
        "full": full,
        **head_limits(max_header_bytes),
    }
    if unexpected():
        from .documented_protocol import DocumentedProtocol
        from .documented_server import DocumentedIncoming, answering_to_the_end

        make_request = partial(DocumentedIncoming, **requests)
        return ClientServer(answering_to_the_end(handler), connection=DocumentedProtocol, request_factory=make_request, **options)
    from .downstream import DownstreamProtocol
    from .downstream_server import DownstreamServer, FastIncoming

    return DownstreamServer(handler, connection=DownstreamProtocol, request_factory=partial(FastIncoming, **requests), **options)
