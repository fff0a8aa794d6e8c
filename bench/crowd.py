"""Thousands of subscribers in one process, on bare sockets, that check every event.

They all get the same bytes, so the content of an HTTP chunk is parsed once.
"""

import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .events import filler

_EVENT = re.compile(rb"(?::[^\n]*\n|\n)*(?:id: ?([^\n]*)\n)?data: (\d{10}) (\d{20}) ([a-z0-9]*)\n\n(?::[^\n]*\n)*")
_COMMENTS = re.compile(rb"(?::[^\n]*\n|\n)*")
_READ_BYTES = 128 * 1024
_MOST_CONNECTING = 500
_MOST_KNOWN = 2000
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Part:
    """The content of some bytes of body."""

    first: int
    """Number of the first event, -1 when there is none."""
    last: int
    events: int
    id: str
    """ID of the last event."""
    sent_ns: tuple[int, ...]
    defects: Counter[str]
    rest: bytes
    """The rest: an unfinished block."""


def read_part(body: bytes) -> Part:
    """Parse the events in `body`, which begins between two blocks."""
    at = 0
    first = last = -1
    id = b""
    sent = []
    defects: Counter[str] = Counter()
    while found := _EVENT.match(body, at):
        at = found.end()
        number = int(found[2])
        if last >= 0 and number != last + 1:
            defects["lost" if number > last else "repeated"] += abs(number - last - 1) or 1
        if not filler().startswith(found[4]):
            defects["corrupt"] += 1
        first, last, id = number if first < 0 else first, number, found[1] or b""
        sent.append(int(found[3]))
    if comments := _COMMENTS.match(body, at):
        at = comments.end()
    rest = body[at:]
    if b"\n\n" in rest:
        defects["corrupt"] += 1
        rest = rest.rpartition(b"\n\n")[2]
    return Part(first, last, len(sent), id.decode(), tuple(sent), defects, rest)


class Subscriber:
    """One connection."""

    __slots__ = (
        "_body_rest",
        "_chunked",
        "_crowd",
        "_rest",
        "begun_at",
        "connection",
        "events",
        "next",
        "request",
        "started_at",
    )

    def __init__(self, crowd: "Crowd", connection: socket.socket, request: bytes, expected: int) -> None:
        self._crowd = crowd
        self._chunked: bool | None = None  # None: no head yet
        self._rest = b""
        self._body_rest = b""
        self.connection = connection
        self.request = request
        self.started_at = time.monotonic()
        self.begun_at = 0.0
        """When the head came, 0.0 before that."""
        self.next = expected
        """Number of the next event, -1 when any may be the first."""
        self.events = 0

    def take(self, data: bytes) -> None:
        """Process the bytes that were read."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._chunked is None:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._begin(head.lower())
        if not self._chunked:
            self._take_body(data)
            return
        at = 0
        while (line := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:line], 16)
            start = line + 2
            if len(data) < start + size + 2:
                break
            self._take_body(data[start : start + size])
            at = start + size + 2
        self._rest = data[at:]

    def _begin(self, head: bytes) -> None:
        self.begun_at = time.monotonic()
        status = head.split(b" ", 2)[1].decode()
        if status != "200":
            self._crowd.defects[f"status {status}"] += 1
        self._chunked = b"\r\ntransfer-encoding: chunked" in head

    def _take_body(self, body: bytes) -> None:
        if self._body_rest:
            body = self._body_rest + body
        part = self._crowd.read(body)
        self._body_rest = part.rest
        if part.defects:
            self._crowd.defects.update(part.defects)
        if not part.events:
            return
        if part.first != self.next >= 0:
            self._crowd.defects["lost" if part.first > self.next else "repeated"] += abs(part.first - self.next)
        self.next = max(self.next, part.last + 1)
        self.events += part.events
        self._crowd.taken(self, part)


class Crowd:
    """All subscribers and their common results."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._epoll = select.epoll()
        self._first = select.epoll()  # of those in `timed`
        self._known: dict[bytes, Part] = {}
        self._by_fd: dict[int, Subscriber] = {}
        self.defects: Counter[str] = Counter()
        self.events = 0
        self.latencies_ns: list[int] | None = None
        """Latencies of the subscribers in `timed`; None while not measured."""
        self.timed: set[Subscriber] | None = None
        """The subscribers that are read first, because the bulk of the others would delay them. None: all."""
        self.witness: Subscriber | None = None
        self.ids: dict[int, str] = {}
        """IDs by number, of the events after which the witness had something to read."""

    def open(self, last_event_id: str = "", expected: int = -1) -> Subscriber:
        """Start to connect a subscriber that resumes after event `last_event_id` and then expects event number `expected`."""
        resume = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        request = f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAccept: text/event-stream\r\n{resume}\r\n"
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self._port))
        subscriber = Subscriber(self, connection, request.encode(), expected)
        self._by_fd[connection.fileno()] = subscriber
        self._epoll.register(connection.fileno(), select.EPOLLOUT)
        return subscriber

    def open_many(self, count: int, last_event_id: str = "", expected: int = -1, *, seconds: float = 60) -> list[Subscriber]:
        """Connect `count` subscribers, some hundred at a time, until each has its head, or `seconds` have passed."""
        opened: list[Subscriber] = []
        waiting: set[Subscriber] = set()

        def all_begun() -> bool:
            waiting.difference_update([subscriber for subscriber in waiting if subscriber.begun_at])
            while len(opened) < count and len(waiting) < _MOST_CONNECTING:
                subscriber = self.open(last_event_id, expected)
                opened.append(subscriber)
                waiting.add(subscriber)
            return not waiting

        if not self.run(all_begun, seconds):
            self.defects["not begun"] += len(waiting) + count - len(opened)
        return opened

    def run(self, done: Callable[[], bool], seconds: float) -> bool:
        """Read until `done`, which is called now and then, or `seconds` have passed. Return whether it was done."""
        end = time.monotonic() + seconds
        while not done():
            if (now := time.monotonic()) >= end:
                return False
            while time.monotonic() < now + _POLL_SECONDS:
                for fd, events in self._epoll.poll(_POLL_SECONDS):
                    if fd != self._first.fileno():
                        self._serve(self._by_fd[fd], events)
                    self._serve_first()
        return True

    def time_alone(self, subscribers: list[Subscriber]) -> None:
        """Measure only these subscribers from now on."""
        self.timed = set(subscribers)
        self._epoll.register(self._first.fileno(), select.EPOLLIN)
        for subscriber in subscribers:
            self._epoll.unregister(subscriber.connection.fileno())
            self._first.register(subscriber.connection.fileno(), select.EPOLLIN)

    def _serve_first(self) -> None:
        if self.timed:
            for fd, events in self._first.poll(0):
                self._serve(self._by_fd[fd], events)

    def _serve(self, subscriber: Subscriber, events: int) -> None:
        if events & select.EPOLLOUT and subscriber.request:
            self._epoll.modify(subscriber.connection.fileno(), select.EPOLLIN)
            try:
                subscriber.connection.sendall(subscriber.request)
            except OSError:
                self._lose(subscriber, "refused")
            subscriber.request = b""
            return
        try:
            data = subscriber.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            subscriber.take(data)
        else:
            self._lose(subscriber, "cut short")

    def _lose(self, subscriber: Subscriber, defect: str) -> None:
        self.defects[defect] += 1
        del self._by_fd[subscriber.connection.fileno()]
        subscriber.connection.close()

    def read(self, body: bytes) -> Part:
        """Return the parsed content of `body`."""
        part = self._known.get(body)
        if part is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            part = self._known[body] = read_part(body)
        return part

    def taken(self, subscriber: Subscriber, part: Part) -> None:
        """Record the events that a subscriber got."""
        self.events += part.events
        if subscriber is self.witness:
            self.ids[part.last] = part.id
        if self.latencies_ns is not None and (self.timed is None or subscriber in self.timed):
            now = time.monotonic_ns()
            self.latencies_ns += [now - sent for sent in part.sent_ns]

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(self._by_fd.values())

    def close(self) -> None:
        """Disconnect all at once."""
        for subscriber in self._by_fd.values():
            subscriber.connection.close()
        self._by_fd.clear()
