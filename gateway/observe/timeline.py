"""Keep recent incidents: ends of event streams, upstreams lost and found again, gaps, ends of workers, and reloads of routes."""

import re
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from ..access.exchange import Exchange
from ..streams.relay import CUT
from ..streams.subscriber import BEHIND

_MOST_MARKS = 100
_MOST_ENDED = 30
_SAME_SECONDS = 1.0
"""Equal marks within this time become one mark with a count: ten thousand subscribers may hit the same gap."""
_MOST_CHARS = 200

_MOST_READ_CHARS = 4096
_WORD_WITH_QUERY = re.compile(r"(?<!\S)([^\s?#]*)[?#]\S+")  # anchored at the start of a word, so that matching takes linear time
_STREAM_ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{24}\b")

WORKER = "worker"
"""A worker ended."""
RELOADED = "reloaded"
"""The routes were reloaded."""
NOT_RELOADED = "not-reloaded"
"""A reload failed; the old routes stay in force."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One incident, which happened once or several times in a row."""

    at: float
    """Unix time."""
    kind: str
    """One of the constants above, of `modes.observer`, or the verdict of an event stream that ended badly."""
    route: str
    path: str
    detail: str
    count: int = 1


class _End(NamedTuple):
    """An event stream that has ended. Secrets in path and reason are removed on reading."""

    at: float
    route: str
    method: str
    path: str
    verdict: str
    reason: str
    blocks: int
    bytes: int
    seconds: float


class Timeline:
    """Keep the newest marks and ends, a bounded number. Costs nothing per event."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MOST_MARKS)
        self._ended: deque[_End] = deque(maxlen=_MOST_ENDED)

    def __repr__(self) -> str:
        return f"<Timeline marks={len(self._marks)} ended={len(self._ended)}>"

    @property
    def marks(self) -> list[dict[str, Any]]:
        """The newest marks, oldest first."""
        return [asdict(mark) for mark in self._marks]

    @property
    def ended(self) -> list[dict[str, Any]]:
        """The latest event streams that ended, oldest first."""
        return [end._asdict() | {"path": shown_path(end.path), "reason": without_secrets(end.reason)} for end in self._ended]

    def mark(self, kind: str, route: str, target: str = "", detail: str = "") -> None:
        """Record an incident, without the query of `target` and those of URLs in `detail`."""
        mark = Mark(time.time(), kind, route, shown_path(target), without_secrets(detail))
        last = self._marks[-1] if self._marks else None
        if last is not None and mark.at - last.at < _SAME_SECONDS and replace(mark, at=last.at, count=last.count) == last:
            self._marks[-1] = replace(last, count=last.count + 1)
        else:
            self._marks.append(mark)

    def note_end(self, exchange: Exchange) -> None:
        """Record an event stream that has ended."""
        relay = exchange.relay
        assert relay is not None
        seconds = time.monotonic() - exchange.opened_at
        route, path = exchange.route.path, exchange.shown_path
        end = (time.time(), route, exchange.method, path, relay.verdict, relay.reason, relay.blocks_out, relay.bytes_out, seconds)
        self._ended.append(_End(*end))
        if relay.verdict in (CUT, BEHIND):
            self.mark(relay.verdict, route, path, relay.reason)


def shown_path(target: str) -> str:
    """Return the path of a request target without its query, which may carry secrets."""
    return shown_id(target.partition("?")[0])


def shown_id(text: str) -> str:
    """Return an event ID with a kept stream's ID shortened: the full ID may be enough to read the stream."""
    return _STREAM_ID.sub(r"\1…", text)[:_MOST_CHARS]


def without_secrets(text: str) -> str:
    """Return the first 200 characters of a message, without the queries and fragments of the URLs in it.

    A URL is a word with a slash. Of the message at most 4,096 characters are read.
    """
    return _WORD_WITH_QUERY.sub(_cut_query, text[:_MOST_READ_CHARS])[:_MOST_CHARS]


def _cut_query(word: re.Match[str]) -> str:
    return f"{word[1]}?…" if "/" in word[0] else word[0]
