"""One request and its answer, as the gateway's metrics and logs see them."""

import asyncio
import re
import time
from dataclasses import dataclass, field

from service.tracing import Span

from ..policy.caller import Caller
from ..policy.refusal import Reason
from ..policy.routes import Route
from ..streams.relay import Relay
from ..streams.subscriber import Subscriber
from .throttle import Allowance

_STREAM_ID = re.compile(r"\A(/streams/[0-9a-f]{8})[0-9a-f]+")


@dataclass(slots=True, eq=False)
class Exchange:
    """Lives from the request's admission to the end of its answer."""

    route: Route
    method: str
    target: str
    """Path and query as they came, percent-encoded."""
    client: str
    opened_at: float = field(default_factory=time.monotonic)
    status: int = 0
    relay: Relay | Subscriber | None = None
    """What sends the answer's body."""
    event_stream: bool = False
    ui_messages: bool = False
    """Whether the event stream is one of the AI SDK's UI messages, which have a form of their own for errors."""
    refused: Reason | None = None
    """Why the gateway answered with an error of its own; None when it did not."""
    wants_retry: bool = False
    """Whether a `retry` line may be sent ahead of the first block."""
    allowance: Allowance | None = None
    """What its client may be sent, None when there is no limit."""
    counted_as: str = ""
    """The owner of what is held for it, as `Incoming.counted_as` says."""
    handed_over: bool = False
    """Whether it came from another worker of this gateway, which counts it."""

    to_peer: bool = False
    """Whether another worker of this gateway answers."""
    caller: Caller | None = None
    """Who asks, None when nobody looked."""
    expiry: asyncio.TimerHandle | None = None
    """What will end it when the credential that opened it expires."""

    request_id: str = ""
    """What the request is called in logs, errors and traces."""
    span: Span | None = None
    """What is told of it to a collector of traces, None when there is none."""

    @property
    def shown_path(self) -> str:
        """The path for logs and traces: without the query, which may carry secrets, and with a kept stream's id cut short, which is one."""
        path = self.target.partition("?")[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return _STREAM_ID.sub(r"\1", path) if path.startswith("/streams/") else path

    @property
    def mode(self) -> str:
        """How it is answered, which may not be its route's mode: what must not be shared or kept goes as in mode direct."""
        if self.to_peer:
            return "resumable"
        return "direct" if isinstance(self.relay, Relay) else self.route.mode

    def refuse(self, status: int, reason: Reason) -> None:
        """Takes note that the answer is an error of the gateway's own."""
        self.status, self.refused = status, reason

    def facts(self) -> dict[str, object]:
        """Gives what a log line says of it: no query, no header, no body."""
        facts: dict[str, object] = {
            "route": self.route.path,
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
