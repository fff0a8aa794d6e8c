"""What has happened lately: which event streams ended and how, which upstreams were lost and came back, who met a gap, new routes."""

import re
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from ..exchange import Exchange
from ..fan_out.subscriber import BEHIND
from ..relay import CUT

_MOST_MARKS = 100
_MOST_ENDED = 30
_SAME_SECONDS = 1.0
"""Equal marks within so long are one mark with a count: ten thousand subscribers may meet the same gap."""
_MOST_CHARS = 200

_MOST_READ_CHARS = 4096
_WORD_WITH_QUERY = re.compile(r"(?<!\S)([^\s?#]*)[?#]\S+")  # from where a word begins, so that the cost is linear
_STREAM_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")

LOST = "lost"
"""The upstream of a shared stream was lost; it is asked again."""
BACK = "back"
"""It was found again."""
GAP = "gap"
"""Subscribers were told that they may have missed something."""
WORKER = "worker"
"""A worker ended."""
RELOADED = "reloaded"
"""The routes were read again."""
NOT_RELOADED = "not-reloaded"
"""They were not, and the old ones hold."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that happened, once or several times in a row."""

    at: float
    """Unix time."""
    kind: str
    """One of the constants above, or the verdict of an event stream that ended badly."""
    route: str
    path: str
    detail: str
    count: int = 1


class _End(NamedTuple):
    """An event stream that has ended; what must not be shown of its path and its reason is left out when somebody looks."""

    at: float
    route: str
    method: str
    path: str
    verdict: str
    reason: str
    blocks: int
    bytes: int
    seconds: float


@dataclass(slots=True)
class Sent:
    """What the event streams of one route have sent that have ended."""

    blocks: int = 0
    bytes: int = 0


class Timeline:
    """Keeps the newest marks and ends, however many there are; costs nothing per event."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MOST_MARKS)
        self._ended: deque[_End] = deque(maxlen=_MOST_ENDED)
        self.sent: dict[str, Sent] = {}
        """By the route's path."""

    def __repr__(self) -> str:
        return f"<Timeline marks={len(self._marks)} ended={len(self._ended)}>"

    @property
    def marks(self) -> list[dict[str, Any]]:
        """The newest marks, oldest first."""
        return [asdict(mark) for mark in self._marks]

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The event streams that ended last, oldest first."""
        return [end._asdict() | {"path": shown_path(end.path), "reason": without_secrets(end.reason)} for end in self._ended]

    def mark(self, kind: str, route: str, target: str = "", detail: str = "") -> None:
        """Takes note of what has just happened. The query of `target`, and those of URLs in `detail`, are left out."""
        mark = Mark(time.time(), kind, route, shown_path(target), without_secrets(detail))
        last = self._marks[-1] if self._marks else None
        if last is not None and mark.at - last.at < _SAME_SECONDS and replace(mark, at=last.at, count=last.count) == last:
            self._marks[-1] = replace(last, count=last.count + 1)
        else:
            self._marks.append(mark)

    def note_end(self, exchange: Exchange) -> None:
        """Takes note of an event stream that has ended."""
        relay = exchange.relay
        assert relay is not None
        sent = self.sent.get(exchange.route.path)
        if sent is None:
            sent = self.sent[exchange.route.path] = Sent()
        sent.blocks += relay.blocks_out
        sent.bytes += relay.bytes_out
        seconds = time.monotonic() - exchange.opened_at
        route, path = exchange.route.path, exchange.target.partition("?")[0]
        end = (time.time(), route, exchange.method, path, relay.verdict, relay.reason, relay.blocks_out, relay.bytes_out, seconds)
        self._ended.append(_End(*end))
        if relay.verdict in (CUT, BEHIND):
            self.mark(relay.verdict, exchange.route.path, exchange.target, relay.reason)


def shown_path(target: str) -> str:
    """Gives the path of a request target without its query, which may carry secrets."""
    return shown_id(target.partition("?")[0])


def shown_id(text: str) -> str:
    """Gives an event ID with only the beginning of a kept stream's id in it, because who knows all of it may come for the stream."""
    return _STREAM_ID.sub(r"\1…", text)[:_MOST_CHARS]


def without_secrets(text: str) -> str:
    """Return the first 200 characters of a message, without the queries and fragments of the URLs in it.

    A URL is a word with a slash. Of the message at most 4,096 characters are read.
    """
    return _WORD_WITH_QUERY.sub(_cut_query, text[:_MOST_READ_CHARS])[:_MOST_CHARS]


def _cut_query(word: re.Match[str]) -> str:
    return f"{word[1]}?…" if "/" in word[0] else word[0]
