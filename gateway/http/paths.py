"""Choose how this process uses aiohttp: by internals, which is fast, or by its documented interface if they are not as expected."""

import asyncio
from collections.abc import Callable
from typing import Any

from ..policy.refusal import Reason, Refusal
from ..policy.trusted_proxies import TrustedProxies
from .connection import ClientServer, Handler
from .headers import head_limits, max_head_bytes
from .internals import unexpected

if unexpected():  # then the modules of the fast path may not even load
    from . import documented_server as server
    from .documented_client import count_connections, open_client, open_following_session, open_session
    from .pump import attach
else:
    from . import downstream_server as server  # type: ignore[no-redef]
    from .upstream import attach_or_pump as attach
    from .upstream import count_connections, open_client, open_following_session, open_session

__all__ = ["attach", "count_connections", "make_server", "open_client", "open_following_session", "open_session"]


def make_server(
    handler: Handler,
    *,
    trusted: TrustedProxies,
    keepalive_seconds: float,
    head_seconds: float,
    max_header_bytes: int,
    rejected: Callable[[Reason, int], None],
    full: Callable[[], Refusal | None],
) -> ClientServer:
    """Return the server of the public port. `rejected` is told what is refused before `handler` sees it."""
    requests = {"loop": asyncio.get_running_loop(), "trusted": trusted}
    options: dict[str, Any] = {
        "keepalive_timeout": keepalive_seconds,
        "head_seconds": head_seconds,
        "max_head_bytes": max_head_bytes(max_header_bytes),
        "rejected": rejected,
        "full": full,
        **head_limits(max_header_bytes),
    }
    return server.make_server(handler, requests, options)
