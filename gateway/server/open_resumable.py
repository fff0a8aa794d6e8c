"""Open mode resumable: its store, and the kept streams that are in it."""

import asyncio
import contextlib
from pathlib import Path

from ..access.authorization import Authorizer
from ..access.budget import Budget
from ..modes.direct import Direct
from ..modes.resumable.kept_streams import KeptStreams
from ..modes.resumable.peers import Peers
from ..modes.resumable.resumable_mode import Resumable
from ..modes.resumable.resumption import Resumption
from ..modes.resumable.sqlite_store import SqliteStreamStore
from ..modes.resumable.store import StoreError, StoreInUse
from ..observe.metrics import Metrics
from ..policy.route_table import Routes
from ..policy.settings import Settings
from ..streams.wheel import TimerWheel

_STORE_POLL_SECONDS = 0.2


async def open_resumable(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    routes: Routes,
    direct: Direct,
    wheel: TimerWheel,
    metrics: Metrics,
    peers: Peers,
    authorizer: Authorizer,
    open_streams: Budget,
    unsent: Budget,
) -> Resumable:
    """Open the store and mode resumable. Raises OSError if the store is not available."""
    store = await _open_store(peers.directory(settings.data_dir), settings, settings.drain_seconds if peers.path else 0)
    peers.open(wheel, direct.bodies, settings.upstream_keepalive_seconds, settings.max_header_bytes)
    stack.push_async_callback(peers.close)
    streams = KeptStreams(
        store,
        wheel,
        max_bytes=settings.max_kept_bytes,
        max_bytes_per_client=settings.share_of(settings.max_kept_bytes),
        open_streams=open_streams,
        routes=routes.route_of,
        observer=metrics,
    )
    await stack.enter_async_context(streams.upkeep())
    metrics.watch("gateway_kept_streams_running", lambda: streams.running)
    metrics.watch("gateway_kept_bytes", lambda: streams.memory.amount)
    resumption = Resumption(streams, routes, wheel, metrics, peers, authorizer, unsent)
    return Resumable(direct, metrics, peers, resumption)


async def _open_store(directory: Path, settings: Settings, patience_seconds: float) -> SqliteStreamStore:
    """Open the store. A draining worker may still have it locked while its successor starts: retry for `patience_seconds`."""
    until = asyncio.get_running_loop().time() + patience_seconds
    while True:
        try:
            return await SqliteStreamStore.open(
                directory, most_bytes=settings.max_store_bytes, share_per_owner=settings.max_share_per_client
            )
        except StoreError as error:
            if not isinstance(error, StoreInUse) or asyncio.get_running_loop().time() >= until:
                raise OSError(str(error)) from error
        await asyncio.sleep(_STORE_POLL_SECONDS)
