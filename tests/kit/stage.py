"""The upstream of the proxy under test: one server for all tests, which plays each test's script for its request."""

import asyncio
import ssl
from types import TracebackType
from typing import Self

from tests.kit.certificates import Authority
from tests.kit.downstream import AT_ONCE_SECONDS
from tests.kit.upstream import Asked, Script, ScriptedUpstream
from tests.kit.waiting import GUARD_SECONDS

FIELD = "X-Scene"
"""Names the script for a request; as an end-to-end header field it passes any proxy."""

_UNKNOWN: Script = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]


class Scene:
    """A script, and the requests that were answered with it."""

    def __init__(self, number: int, script: Script, *, read_body: bool) -> None:
        self.script = script
        self.read_body = read_body
        self.headers = [(FIELD, str(number))]
        """The header fields of a request for this script."""
        self.requests: list[Asked] = []
        self.arrived = asyncio.Event()

    async def asked(self, timeout: float = GUARD_SECONDS) -> Asked:
        """Return the first request, when it has come."""
        async with asyncio.timeout(timeout):
            await self.arrived.wait()
        return self.requests[0]

    async def left(self, within: float = AT_ONCE_SECONDS) -> None:
        """Return when the proxy has closed the first request. Raises TimeoutError when it has not after `within` seconds."""
        asked = await self.asked()
        async with asyncio.timeout(within):
            await asked.left.wait()


class Stage:
    """A scripted upstream on one port, for any number of concurrent tests; with an `authority` it speaks HTTPS."""

    def __init__(self, authority: Authority | None = None) -> None:
        self._scenes: dict[str, Scene] = {}
        tls = None if authority is None else authority.issue("upstream").server_context()
        self._upstream = ScriptedUpstream(self._script_of, read_body=self._reads_body, tls=tls)
        self.trust: dict[str, object] = {} if authority is None else {"ca_file": str(authority.file)}
        """A route's TLS keys for this upstream."""
        self._authority = authority
        self.strays: list[Asked] = []
        """Requests that no test sent: the proxy was tricked into sending them."""

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        self.port = self._upstream.port
        self.url = self._upstream.url
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._upstream.__aexit__(kind, error, trace)

    def client_context(self) -> ssl.SSLContext | None:
        """Return the context of a direct client of this upstream, None when it speaks plain HTTP."""
        return None if self._authority is None else ssl.create_default_context(cafile=self._authority.file)

    def scene(self, *script: object, read_body: bool = True) -> Scene:
        """Announce a script; requests with `Scene.headers` get it."""
        scene = Scene(len(self._scenes), script, read_body=read_body)  # type: ignore[arg-type]
        self._scenes[scene.headers[0][1]] = scene
        return scene

    def _reads_body(self, asked: Asked) -> bool:
        scene = self._scenes.get(asked.header(FIELD) or "")
        return scene is None or scene.read_body

    def _script_of(self, asked: Asked) -> Script:
        scene = self._scenes.get(asked.header(FIELD) or "")
        if scene is None:
            self.strays.append(asked)
            return _UNKNOWN
        scene.requests.append(asked)
        scene.arrived.set()
        return scene.script
