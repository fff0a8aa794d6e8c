"""What can be wrong with an event stream, one class per fact, the facts as attributes."""


class EventStreamError(Exception):
    """The peer's fault: what it sent is not an event stream that can be followed."""


class BlockTooLarge(EventStreamError):
    """An event block outgrew the limit; the stream cannot go on, because its end is unknown.

    `complete` holds the whole blocks that came before it in the same chunk: they are good, forward them first.
    """

    def __init__(self, size: int, limit: int, complete: bytes = b"") -> None:
        super().__init__(f"event block reached {size} bytes, limit is {limit}")
        self.size = size
        self.limit = limit
        self.complete = complete


class ConnectionFailed(EventStreamError):
    """The server's answer means: do not reconnect (HTML standard 9.2.2, "fail the connection").

    `status` is the HTTP status, `content_type` the answer's, empty when there was none.
    """

    def __init__(self, url: str, reason: str, *, status: int = 0, content_type: str = "") -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.status = status
        self.content_type = content_type
