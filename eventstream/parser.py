"""Interpret event blocks (HTML standard 9.2.6)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_LONGEST_RETRY_DIGITS = 18  # int() refuses thousands of digits, and no client waits for 10^18 ms


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event."""

    data: str
    type: str = "message"
    id: str | None = None
    """The `id` field of this very block; None when it had none, or one with NUL, which is ignored."""
    last_event_id: str = ""
    """The last event ID after this block: its own `id`, or the newest before it."""
    retry: int | None = None
    """The `retry` field of this block in milliseconds, None when it had none."""


class Parser:
    """Parse whole event blocks into events, in order.

    It takes what `Framer.feed` returns. A block without data yields no event, but still updates the last event ID and the reconnection
    time. Bytes that are not UTF-8 become U+FFFD. No input raises.
    """

    __slots__ = ("_ahead", "_on_comment", "last_event_id", "reconnection_time")

    def __init__(self, last_event_id: str = "", *, on_comment: Callable[[str], None] | None = None) -> None:
        self.last_event_id = last_event_id
        """The value that a reconnection sends as `Last-Event-ID`; if empty, none is sent."""
        self.reconnection_time: int | None = None
        """The newest `retry` in milliseconds, None before the first."""
        self._on_comment = on_comment
        self._ahead = 0  # comments of the unfinished block that were already reported

    def __repr__(self) -> str:
        return f"<Parser last_event_id={self.last_event_id!r} reconnection_time={self.reconnection_time}>"

    def feed(self, blocks: bytes) -> list[Event]:
        """Return the events of `blocks`, which must end at the end of a block."""
        events: list[Event] = []
        fields: list[bytes] = []
        for line in blocks.splitlines():
            if line:
                fields.append(line)
            elif fields:
                event = self._interpret(fields)
                if event is not None:
                    events.append(event)
                fields = []
        return events

    def feed_unfinished(self, lines: Iterable[bytes]) -> None:
        """Interpret the lines of an unfinished block, each once, as far as a line has a meaning of its own.

        Comments are reported, and `retry` becomes the reconnection time. Feed the whole block when it has ended, or call
        `forget_unfinished` when it never will.
        """
        retry = b""
        for line in lines:
            if line.startswith(b":"):
                self._ahead += 1
                if self._on_comment is not None:
                    self._on_comment(_value(line).decode("utf-8", "replace"))
            elif line.startswith(b"retry:") and (value := _value(line)).isdigit():
                retry = value
        if retry:
            self.reconnection_time = _read_retry(retry)

    def forget_unfinished(self) -> None:
        """Forget a block that will never be finished: the next block has lines of its own."""
        self._ahead = 0

    def _interpret(self, lines: list[bytes]) -> Event | None:
        data: list[bytes] = []
        event_type = ""
        event_id: str | None = None
        retry: int | None = None
        for line in lines:
            name, _, value = line.partition(b":")
            if value[:1] == b" ":
                value = value[1:]
            if name == b"data":
                data.append(value)
            elif name == b"event":
                event_type = value.decode("utf-8", "replace")
            elif name == b"id" and b"\0" not in value:
                event_id = value.decode("utf-8", "replace")
            elif name == b"retry" and value.isdigit():
                retry = _read_retry(value)
            elif not name:
                self._tell_comment(value)
        if retry is not None:
            self.reconnection_time = retry
        if event_id is not None:
            self.last_event_id = event_id
        if not data:
            return None
        text = b"\n".join(data).decode("utf-8", "replace")
        return Event(text, event_type or "message", event_id, self.last_event_id, retry)

    def _tell_comment(self, value: bytes) -> None:
        if self._ahead:
            self._ahead -= 1
        elif self._on_comment is not None:
            self._on_comment(value.decode("utf-8", "replace"))


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].removeprefix(b" ")


def _read_retry(digits: bytes) -> int:
    return int(digits.lstrip(b"0")[:_LONGEST_RETRY_DIGITS] or b"0")
