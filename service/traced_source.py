"""An event source that gives each request an ID, and a span when tracing is on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from yarl import URL

from eventstream.client import EventSource

from .request_ids import REQUEST_ID, new_request_id
from .tracing import Attributes, Span, Tracing

BuildFields = Callable[[Mapping[str, str]], Mapping[str, str]]
"""A function that returns the header fields of a request, including those it is given."""


class TracedSource(EventSource):
    """An EventSource whose header fields `fields` builds anew for each attempt.

    With `tracing`, a span covers each attempt until the end of its stream. The first span is a child of `opener`, whose request needs
    the stream. Later ones, which no request waits for, start traces of their own with a link to it. Without tracing, the first attempt
    carries `first_fields`: the trace context of the opener's request.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        fields: BuildFields,
        tracing: Tracing | None = None,
        opener: Span | None = None,
        first_fields: Mapping[str, str] | None = None,
        on_change: Callable[["EventSource"], None] | None = None,
        **options: Any,
    ) -> None:
        self.request_id = ""
        """The ID of the newest request, here and at the upstream."""
        self._build_fields = fields
        self._tracing = tracing
        self._opener = opener
        self._first_fields = first_fields or {}
        self._method = options.get("method", "GET")
        self._shown = _show(str(url), self._method)
        self._span: Span | None = None
        self._span_open = False
        self._before = (0, 0)  # blocks and bytes
        self._told = on_change
        super().__init__(url, headers=self._next_fields, on_change=self._changed, **options)

    @property
    def span(self) -> Span | None:
        """The span of the newest attempt, None without tracing."""
        return self._span

    def _next_fields(self) -> Mapping[str, str]:
        self.request_id = new_request_id()
        own = {REQUEST_ID: self.request_id}
        if self._tracing is None:
            own.update(self._first_fields)
        else:
            self._finish()  # one that `restart` interrupted
            first = self._span is None
            links: Sequence[Span] = () if first or self._opener is None else (self._opener,)
            self._span = self._tracing.ask(self._method, self._shown, self._opener if first else None, links)
            self._span_open = True
            own.update(self._span.fields())
            self._before = (self.blocks_received, self.bytes_received)
        self._first_fields = {}
        return self._build_fields(own)

    def _changed(self, source: EventSource) -> None:
        if self.state != "open":
            self._finish()
        if self._told is not None:
            self._told(source)

    def _finish(self) -> None:
        """End the span of an attempt, unless it has ended."""
        if self._span is None or not self._span_open:
            return
        self._span_open = False
        attributes: dict[str, str | int | float | bool] = {
            "eventstream.request_id": self.request_id,
            "eventstream.blocks": self.blocks_received - self._before[0],
            "eventstream.bytes": self.bytes_received - self._before[1],
        }
        if self.last_status is not None:
            attributes["http.response.status_code"] = self.last_status
        failed = self.last_status is None or self.last_status >= 400
        if failed:
            attributes["error.type"] = str(self.last_status or "connection")
        self._span.end(attributes, f"answered {self.last_status}" if self.last_status and failed else "no answer" if failed else "")


def _show(url: str, method: str) -> Attributes:
    """Return a span's attributes for a request, without credentials and query."""
    parts = urlsplit(url)
    shown: dict[str, str | int] = {
        "http.request.method": method,
        "url.full": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}",
        "server.address": parts.hostname or "",
    }
    if parts.port is not None:
        shown["server.port"] = parts.port
    return shown
