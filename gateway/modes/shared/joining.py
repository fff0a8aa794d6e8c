"""Add subscribers to a stream."""

from ...streams.fan_out import FanOut
from ...streams.subscriber import Subscriber
from .stream import SharedStream


def join(stream: SharedStream | None, fan_out: FanOut, cursor: int | None, subscriber: Subscriber) -> None:
    """Add a subscriber at `cursor`, or at the next event. `stream` is None if the upstream's own `retry` follows."""
    if stream is not None:
        _send_retry(stream, subscriber)
        if cursor is None and stream.last_event_id:  # the next event may have no ID of its own, and the client could not resume
            subscriber.send_id_ahead(stream.last_event_id)
    fan_out.join(subscriber, cursor)


def join_behind_gap(stream: SharedStream, asked: str, reason: str, subscriber: Subscriber) -> None:
    """Add a subscriber, beginning with a gap event."""
    _send_retry(stream, subscriber)
    stream.send_gap(subscriber, asked, reason)


def _send_retry(stream: SharedStream, subscriber: Subscriber) -> None:
    """Send a new subscriber the upstream's last `retry`."""
    if stream.source.reconnection_time is not None:
        subscriber.send_retry_ahead(stream.source.reconnection_time)
