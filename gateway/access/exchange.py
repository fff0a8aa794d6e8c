"""One request and its answer, for the gateway's metrics and logs."""

import asyncio
import re
import time
from dataclasses import dataclass, field

from service.tracing import Span

from ..policy.caller import Caller
from ..policy.paths import STREAMS_PATH
from ..policy.refusal import Reason
from ..policy.resume import hide_name
from ..policy.routes import Route
from ..streams.relay import Relay
from ..streams.subscriber import Subscriber
from .throttle import Allowance

_STREAM_ID = re.compile(rf"\A({STREAMS_PATH}[0-9a-f]{{8}})[0-9a-f]+")


@dataclass(slots=True, eq=False)
class Exchange:
    """A request from its admission to the end of its answer."""

    known_route: Route | None
    """The route, or None until the kept stream is found that the request names by its ID."""
    method: str
    target: str
    """Path and query as received, percent-encoded."""
    client: str
    opened_at: float = field(default_factory=time.monotonic)
    status: int = 0
    relay: Relay | Subscriber | None = None
    """The sender of the answer's body."""
    event_stream: bool = False
    ui_messages: bool = False
    """Whether the event stream consists of the AI SDK's UI messages, which have their own form of errors."""
    refused: Reason | None = None
    """Why the gateway answered with its own error, or None."""
    wants_retry: bool = False
    """Whether a `retry` line may precede the first block."""
    allowance: Allowance | None = None
    """The byte allowance of its client, or None without a limit."""
    owner: str = ""
    """The client that its memory and streams count for, from `Incoming.owner`."""
    handed_off: bool = False
    """Whether another worker of this gateway handed it off. That worker counts it."""

    to_peer: bool = False
    """Whether another worker of this gateway answers."""
    caller: Caller | None = None
    """The caller, or None if the route does not authenticate."""
    expiry: asyncio.TimerHandle | None = None
    """The timer that ends it when its credential expires."""

    request_id: str = ""
    """The ID of the request in logs, errors and traces."""
    span: Span | None = None
    """Its span for the trace collector, or None without one."""

    @property
    def route(self) -> Route:
        """The route, once it is known."""
        assert self.known_route is not None
        return self.known_route

    @property
    def route_path(self) -> str:
        """The path prefix of the route for metrics and logs, that of all kept streams if the route is unknown."""
        return self.known_route.path if self.known_route is not None else STREAMS_PATH

    @property
    def shown_path(self) -> str:
        """The path for logs and traces, without secrets: the query is left out, the ID or name of a kept stream is shortened."""
        path = self.target.partition("?")[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if path.startswith(STREAMS_PATH):
            return _STREAM_ID.sub(r"\1", path)
        return hide_name(path, self.known_route.templates) if self.known_route is not None else path

    @property
    def mode(self) -> str:
        """The mode that answers it. It is direct, whatever the route says, if the answer must not be shared or kept."""
        if self.to_peer:
            return "resumable"
        return "direct" if isinstance(self.relay, Relay) else self.route.mode

    def refuse(self, status: int, reason: Reason) -> None:
        """Record that the answer is the gateway's own error."""
        self.status, self.refused = status, reason

    def facts(self) -> dict[str, object]:
        """Return the fields of a log line. They contain no query, header field or body."""
        facts: dict[str, object] = {
            "route": self.route_path,
            "method": self.method,
            "path": self.shown_path,
            "client": self.client,
            "status": self.status,
            "request_id": self.request_id,
            "seconds": round(time.monotonic() - self.opened_at, 3),
        }
        if self.relay is not None:
            facts["verdict"] = self.relay.verdict
            if self.relay.reason:
                facts["reason"] = self.relay.reason
            if self.event_stream:
                facts["blocks"] = self.relay.blocks_out
            facts["bytes"] = self.relay.bytes_out
            facts["heartbeats"] = self.relay.heartbeats
        return facts
