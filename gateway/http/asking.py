"""What the modes need of a client of upstreams, whichever way it uses aiohttp."""

import ssl
from collections.abc import Callable
from typing import Protocol

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy


class UpstreamAnswer(Protocol):
    """An upstream's answer, whose body is still to come."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def reason(self) -> str | None:
        """The phrase behind the status code."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields."""

    @property
    def content(self) -> aiohttp.StreamReader:
        """The body."""

    def close(self) -> None:
        """End the connection unless the body has ended."""


class UpstreamClient(Protocol):
    """A client that asks upstreams."""

    def stop_waiting(self) -> None:
        """Raise Drained in requests that wait for an upstream which is down."""

    async def ask(
        self,
        method: str,
        upstream: str,
        target: str,
        *,
        fields: CIMultiDict[str],
        data: object,
        timeout: aiohttp.ClientTimeout,
        on_connected: Callable[[], None] | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> UpstreamAnswer:
        """Return the answer when its head is here. `data` and `tls` are as aiohttp's `data` and `ssl`.

        `fields` may be changed, and are sent as they are otherwise. `on_connected` is called each time that a connection has been found for
        a body that is not streamed. Raises what aiohttp's client does, and ValueError for fields that cannot be sent.
        """
