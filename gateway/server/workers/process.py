"""One worker, as seen by the parent."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import aiohttp

from .channel import Channel
from .watchdog import Watchdog

_ANSWER_SECONDS = 2.0


class Worker:
    """One of the workers, independent of the process that currently runs it."""

    def __init__(self, number: int, admin_path: str) -> None:
        self.number = number
        self.state = "starting"
        """`starting`, `ready`, `leaving` (draining on its own) or `gone`."""
        self.served = False
        """Whether any of its processes was ever ready."""
        self.ready_at = math.inf
        """Time at which its process became ready, on the loop's clock."""
        self.process: asyncio.subprocess.Process | None = None
        self.channel: Channel | None = None
        self.watchdog = Watchdog()
        self._admin_path = admin_path

    def __repr__(self) -> str:
        return f"<Worker {self.number} {self.state} pid={self.process and self.process.pid}>"

    async def ask(self, target: str, method: str = "GET", body: bytes = b"") -> tuple[int, str, bytes]:
        """Return status, content type and body from the worker's admin endpoints.

        Raises TimeoutError or aiohttp.ClientError if the worker does not answer.
        """
        async with asyncio.timeout(_ANSWER_SECONDS), self.open(target, method, body) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), await answer.read()

    @contextlib.asynccontextmanager
    async def open(self, target: str, method: str = "GET", body: bytes = b"") -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a response from the worker's admin endpoints, without a time limit. Raises the same errors as `ask`."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._admin_path), timeout=timeout) as session,
            session.request(method, f"http://worker{target}", data=body) as answer,
        ):
            yield answer

    def drain(self) -> None:
        """Tell the worker to drain, together with all others."""
        if self.state == "ready" and self.channel is not None:
            self.channel.send(drain=True)
        elif self.state == "starting" and self.process is not None and self.process.returncode is None:
            self.process.terminate()
