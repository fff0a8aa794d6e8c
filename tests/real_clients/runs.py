"""A server in LangGraph's dialect, which cannot resume: it streams runs of the thread `t1`, and names them in `Content-Location`."""

import itertools
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Step, chunk

VALUES = 12
"""Values of each run."""


class Graph:
    """An assistant whose runs stream some numbers as values. `pauses` are at these values, with what happens there."""

    def __init__(self, name: str, pauses: dict[int, Sequence[Step]], *, ids: bool) -> None:
        self.name = name
        self.run = f"run-of-{name}"
        self.location = f"/threads/t1/runs/{self.run}"
        self.calls: list[Asked] = []
        self._pauses = pauses
        self._ids = ids

    def play(self) -> Script:
        """Return the steps of a run."""
        number = itertools.count(1)

        def event(kind: str, data: object) -> bytes:
            id = f"id: own-{next(number)}\n" if self._ids else ""
            return chunk(f"event: {kind}\ndata: {json.dumps(data)}\n{id}\n".encode())

        head = EVENT_STREAM_HEAD[:-2] + f"Content-Location: {self.location}\r\n\r\n".encode()
        steps: list[Step] = [head, event("metadata", {"run_id": self.run, "attempt": 1})]
        for value in range(VALUES):
            steps += [*self._pauses.get(value, ()), event("values", {"n": value})]
        return [*steps, event("end", None), LAST_CHUNK]


class GraphServer:
    """The server. A request names its assistant."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}
        self.passed: list[Asked] = []
        """Requests for something else than a new run."""
        self._server = ScriptedUpstream(self._answer)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self.url = self._server.url
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._server.__aexit__(kind, error, trace)

    def graph(self, pauses: dict[int, Sequence[Step]] | None = None, *, ids: bool = False) -> Graph:
        """Return a new assistant."""
        graph = Graph(f"graph-{len(self._graphs)}", pauses or {}, ids=ids)
        self._graphs[graph.name] = graph
        return graph

    def _answer(self, asked: Asked) -> Script:
        path = asked.target.partition("?")[0]
        if asked.method == "POST" and path.endswith("/threads/t1/runs/stream"):
            graph = self._graphs[json.loads(asked.body)["assistant_id"]]
            graph.calls.append(asked)
            return graph.play()
        self.passed.append(asked)
        if path.endswith("/stream"):
            return [
                EVENT_STREAM_HEAD,
                chunk(b'event: updates\ndata: {"joined": true}\n\n'),
                chunk(b"event: end\ndata: null\n\n"),
                LAST_CHUNK,
            ]
        body = json.dumps({"run_id": path.rpartition("/")[2], "status": "success"}).encode()
        return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]
