"""Which kept answer a request is meant for. Other workers are asked the same question."""

import json
import time
from typing import Literal, NamedTuple

from .kept_stream import KeptStream
from .kept_streams import KeptStreams
from .opening import Opening
from .store import COMPLETE, StreamHead

_RETRY_SECONDS = 10.0  # the longest back-off of the libraries is 8 s


class Asked(NamedTuple):
    """A question for the newest answer that a request may resume."""

    by: Literal["event", "running", "name", "retry"]
    """`event`: by an ID of the upstream's, for an equal request. `running`: by such an ID, for a GET. `name`: by name. `retry`: by an equal
    request."""
    head: StreamHead
    last_event_id: str = ""

    def encode(self) -> bytes:
        """Return the question for another worker."""
        binary = {"credentials": self.head.credentials.hex(), "body": self.head.body.hex()}
        text = {name: getattr(self.head, name) for name in ("route", "method", "target", "key", "name", "owner")}
        return json.dumps({"by": self.by, "head": binary | text, "last_event_id": self.last_event_id}).encode()

    @classmethod
    def decode(cls, document: bytes) -> "Asked":
        """Return the question of another worker."""
        asked = json.loads(document)
        head: dict[str, str] = asked["head"]
        credentials, body = bytes.fromhex(head.pop("credentials")), bytes.fromhex(head.pop("body"))
        return cls(
            asked["by"], StreamHead(id="", fields=(), opened_at=0.0, credentials=credentials, body=body, **head), asked["last_event_id"]
        )

    @property
    def may_be_elsewhere(self) -> bool:
        """Whether another worker may have the answer. One with an Idempotency-Key has already reached the right worker."""
        return bool(self.head.credentials) or self.by in ("name", "retry")


async def find_asked(streams: KeptStreams, asked: Asked) -> StreamHead | None:
    """Return the head of the newest answer of this worker that is asked for, or None. Raises StoreError."""
    if asked.by == "event":
        return await streams.find_resumable(asked.head, asked.last_event_id)
    found = (
        await streams.find_named(asked.head)
        if asked.by == "name"
        else find_running(streams, asked)
        if asked.by == "running"
        else find_retried(streams, asked.head)
    )
    return found.head if found is not None else None


def find_running(streams: KeptStreams, asked: Asked) -> KeptStream | None:
    """Return the newest running answer on the same path, with the same credentials, whose upstream has sent the ID, or None."""
    head = asked.head
    path = head.target.partition("?")[0]
    found = [
        stream
        for stream in streams.streams
        if stream.is_running
        and head.credentials
        and (stream.head.credentials, stream.head.route) == (head.credentials, head.route)
        and stream.head.target.partition("?")[0] == path
        and stream.find(asked.last_event_id) is not None
    ]
    return max(found, key=lambda stream: stream.head.opened_at, default=None)


def find_retried(streams: KeptStreams, head: StreamHead) -> Opening | KeptStream | None:
    """Return the newest answer to an equal request of the same client that has no head yet, runs, or has just become complete, or None."""
    recent = time.time() - _RETRY_SECONDS
    running: list[Opening | KeptStream] = [opening for opening in streams.openings if opening.is_running]
    complete = [stream for stream in streams.streams if stream.state == COMPLETE and stream.ended_at > recent]
    found = [
        each
        for each in (*running, *complete)
        if each.head.credentials == head.credentials
        and (head.credentials or each.head.owner == head.owner)
        and head.asks_the_same(each.head)
    ]
    return max(found, key=lambda each: each.head.opened_at, default=None)
