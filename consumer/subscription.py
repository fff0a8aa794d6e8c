"""Follow the source until the consumer stops, and take its events in."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import structlog

from eventstream import EventStreamError, Reconnection
from service.request_ids import REQUEST_ID
from service.traced_source import TracedSource
from service.tracing import Tracing

from .intake import Intake
from .source import hide_secrets, strip_secrets
from .writer import Writer

_log = structlog.get_logger()

REFUSED_RETRY_SECONDS = 30.0
"""The delay after a final refusal, such as 404, because a deploy may bring the route back. It doubles while the refusal persists."""
LONGEST_REFUSED_RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What to request, and the timeouts and delays."""

    url: str
    method: str = "GET"
    body: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    read_timeout_seconds: float = 60.0
    max_block_bytes: int = 8 * 1024 * 1024
    reconnect_initial_seconds: float = 3.0
    reconnect_maximum_seconds: float = 60.0

    @property
    def name(self) -> str:
        """The URL without secrets."""
        return strip_secrets(self.url)


class Subscription:
    """The events of one source, on their way through an intake to a writer, from the last event ID that the log has.

    After a final refusal (404, a wrong content type) or a block over the limit, it reports the error and retries slowly: a worker runs
    unattended, and a deploy may bring the route back. 204 means that the source is finished: nothing is requested any more.
    """

    def __init__(self, options: SourceOptions, intake: Intake, writer: Writer, last_event_id: str, tracing: Tracing | None = None) -> None:
        self.refused: str | None = None
        """Why the source cannot be followed now."""
        self.finished = False
        self.last_error: str | None = None
        self._options = options
        self._intake = intake
        self._writer = writer
        self._last_event_id = last_event_id
        self._source: TracedSource | None = None
        self._tracing = tracing
        self._reconnection = _ReportedReconnection(options, self._connected, self._disconnected)
        self._earlier_connections = 0
        self._earlier_bytes = 0
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Subscription {self._options.name} {self.state} connections={self.connections}>"

    @property
    def state(self) -> Literal["connecting", "open", "finished", "refused", "closed"]:
        if self.finished:
            return "finished"
        if self.refused is not None:
            return "refused"
        return "connecting" if self._source is None else self._source.state

    @property
    def connections(self) -> int:
        """The number of times the stream was opened."""
        return self._earlier_connections + (0 if self._source is None else self._source.connections)

    @property
    def bytes_received(self) -> int:
        return self._earlier_bytes + (0 if self._source is None else self._source.bytes_received)

    @property
    def not_ready(self) -> str | None:
        """Why events cannot come now. None also between two connections, unless the newest attempt failed."""
        if self.finished:
            return None
        if self.refused is not None:
            return f"the source refuses: {self.refused}"
        if not self.connections:
            return f"not connected yet: {self.last_error or 'no answer so far'}"
        return f"reconnecting: {self.last_error}" if self._reconnection.failures else None

    async def run(self) -> None:
        """Follow the source until `stop`."""
        delay = REFUSED_RETRY_SECONDS
        while not self._stopping.is_set():
            before = self.connections
            try:
                await self._follow()
            except EventStreamError as error:
                self.refused = self.last_error = hide_secrets(str(error))
                if self.connections > before:
                    delay = REFUSED_RETRY_SECONDS
                _log.error("the source cannot be followed; retrying slowly", reason=self.refused, seconds=delay)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), delay)
                delay = min(delay * 2, LONGEST_REFUSED_RETRY_SECONDS)
            else:
                break
        if not self._stopping.is_set():
            self.finished = True
            _log.info("the source is finished: it answered 204 No Content", events=self._intake.tally.events)
            await self._stopping.wait()

    async def stop(self) -> None:
        """Make `run` return at once. Events that were read but not taken in will be requested again."""
        self._stopping.set()
        if self._source is not None:
            await self._source.close()

    async def _follow(self) -> None:
        async with self._open() as self._source:
            connections = 0
            try:
                async for _, event in self._source.parsed_blocks():
                    if self._source.connections != connections:
                        connections = self._source.connections
                        self._intake.connected(self._last_event_id)
                    if event is not None and (records := self._intake.take(event)):
                        await self._writer.put([record.encode() for record in records])
                    self._last_event_id = self._source.last_event_id  # blocks without data update it too, and a reconnection sends it
            finally:
                self._earlier_connections += self._source.connections
                self._earlier_bytes += self._source.bytes_received
                self._source = None

    def _open(self) -> TracedSource:
        try:
            return self._event_source()
        except ValueError:
            if not self._last_event_id:
                raise
            _log.error("a header cannot carry the last event ID; starting without it", last_event_id=self._last_event_id)
            self._last_event_id = ""
            return self._event_source()

    def _event_source(self) -> TracedSource:
        options = self._options
        return TracedSource(
            options.url,
            method=options.method,
            fields=lambda own: {**own, **options.headers},
            tracing=self._tracing,
            body=options.body or None,
            last_event_id=self._last_event_id,
            reconnection=self._reconnection,
            read_timeout_seconds=options.read_timeout_seconds,
            max_block_bytes=options.max_block_bytes,
        )

    def _connected(self) -> None:
        self.refused = None
        _log.info("connected", source=self._options.name, last_event_id=self._last_event_id, **self._request_facts())

    def _disconnected(self, delay: float) -> None:
        self.last_error = hide_secrets((self._source and self._source.last_error) or "")
        _log.info(
            "not connected" if self._reconnection.failures else "disconnected",
            reason=self.last_error,
            events=self._intake.tally.events,
            seconds=round(delay, 3),
            **self._request_facts(),
        )

    def _request_facts(self) -> dict[str, str]:
        """Return the ID of the newest request, and the source's ID for it if that differs."""
        if self._source is None:
            return {}
        facts = {"request_id": self._source.request_id}
        answered = self._source.response_headers.get(REQUEST_ID, "") if self._source.state == "open" else ""
        if answered not in ("", self._source.request_id):
            facts["source_request_id"] = answered[:128]
        return facts


class _ReportedReconnection(Reconnection):
    """Report when an event stream was opened and when the next attempt is due."""

    def __init__(self, options: SourceOptions, on_success: Callable[[], None], on_delay: Callable[[float], None]) -> None:
        super().__init__(initial_seconds=options.reconnect_initial_seconds, maximum_seconds=options.reconnect_maximum_seconds)
        self._on_success = on_success
        self._on_delay = on_delay

    def succeeded(self) -> None:
        super().succeeded()
        self._on_success()

    def next_delay(self) -> float:
        delay = super().next_delay()
        self._on_delay(delay)
        return delay
