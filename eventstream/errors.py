"""The faults of an event stream: one class each, with the facts as attributes."""


class EventStreamError(Exception):
    """The peer is at fault: it sent something other than an event stream that can be followed."""


class BlockTooLarge(EventStreamError):
    """An event block exceeded the limit. The stream cannot continue, because the end of the block is unknown.

    `complete` holds the whole blocks that came before it in the same chunk. They are good: forward them first.
    """

    def __init__(self, size: int, limit: int, complete: bytes = b"", *, unit: str = "bytes") -> None:
        super().__init__(f"event block reached {size} {unit}, limit is {limit}")
        self.size = size
        self.limit = limit
        self.complete = complete


class Undecodable(EventStreamError):
    """A body's bytes are not what its `Content-Encoding` says."""


class DecodedTooLarge(EventStreamError):
    """A body exceeded the limit when its content coding was undone; the stream cannot continue."""

    def __init__(self, received: int, decoded: int, limit: int) -> None:
        super().__init__(f"{received} bytes of the compressed body decoded to {decoded} bytes, limit is {limit}")
        self.received = received
        self.decoded = decoded
        self.limit = limit


class ConnectionFailed(EventStreamError):
    """The server's answer forbids reconnecting (HTML standard 9.2.2, "fail the connection").

    `status` is the HTTP status and `content_type` the answer's content type, empty when it had none.
    """

    def __init__(self, url: str, reason: str, *, status: int = 0, content_type: str = "") -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.status = status
        self.content_type = content_type
