"""An issuer of tokens whose JWKS URLs answer as a test sets them."""

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.auth.signing import public_jwk


class KeyUrl:
    """One URL and its answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.body = b""
        self.status = 200
        self.location = ""
        """Target of a redirect, if the status is one."""
        self.asked = 0
        """Number of requests."""
        self.speaking = asyncio.Event()
        """Requests are answered only while this is set."""
        self.speaking.set()
        self._change = asyncio.Condition()

    def publish(self, *names: str, algorithm: str = "ES256") -> None:
        """Answer with the keys of these names from now on."""
        self.publish_keys([public_jwk(algorithm, name) for name in names])

    def publish_keys(self, keys: Sequence[dict[str, Any]]) -> None:
        self.status, self.body = 200, json.dumps({"keys": keys}).encode()

    async def until_asked(self, times: int, timeout: float = 30) -> None:
        """Wait for this number of requests."""
        async with asyncio.timeout(timeout), self._change:
            await self._change.wait_for(lambda: self.asked >= times)

    async def answer(self) -> web.Response:
        async with self._change:
            self.asked += 1
            self._change.notify_all()
        await self.speaking.wait()
        headers = {"Location": self.location} if self.location else None
        return web.Response(status=self.status, body=self.body, content_type="application/json", headers=headers)


class Issuer:
    """A server of key URLs."""

    def __init__(self) -> None:
        self._urls: dict[str, KeyUrl] = {}
        self._port = 0

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    def key_url(self, name: str) -> KeyUrl:
        """Return the URL of this name, always the same."""
        path = f"/{name}"
        return self._urls.setdefault(path, KeyUrl(f"http://127.0.0.1:{self._port}{path}"))

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        url = self._urls.get(request.path)
        return await url.answer() if url is not None else web.Response(status=404)
