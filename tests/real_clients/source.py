"""An upstream with any number of event streams, each of which plays its own scripts."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.kit.upstream import Asked, Script, ScriptedUpstream, chunk

Play = Script | Callable[[Asked], Script]


class Stream:
    """A stream of the source: its n-th request plays the n-th script, all further ones the last."""

    def __init__(self, name: str, scripts: tuple[Play, ...]) -> None:
        self.name = name
        self.requests: list[Asked] = []
        self._scripts = scripts

    def play(self, asked: Asked) -> Script:
        """Return the script for one more request."""
        self.requests.append(asked)
        script = self._scripts[min(len(self.requests), len(self._scripts)) - 1]
        return script(asked) if callable(script) else script


class Source:
    """The upstream. The last segment of a target names the stream."""

    def __init__(self) -> None:
        self._streams: dict[str, Stream] = {}
        self._server = ScriptedUpstream(self._answer)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._server.__aexit__(kind, error, trace)

    def stream(self, *scripts: Play) -> Stream:
        """Return a new stream."""
        stream = Stream(f"stream-{len(self._streams)}", scripts)
        self._streams[stream.name] = stream
        return stream

    def _answer(self, asked: Asked) -> Script:
        return self._streams[asked.target.rpartition("/")[2]].play(asked)


def event(data: str, id: str = "") -> bytes:
    """Return the step that sends one event in an HTTP chunk of its own."""
    return chunk(f"id: {id}\ndata: {data}\n\n".encode() if id else f"data: {data}\n\n".encode())
