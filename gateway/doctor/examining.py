"""Send all requests that a diagnosis of one path needs."""

import asyncio
import ssl
from collections.abc import Sequence

from .anatomy import dissect
from .attempts import attempt_all
from .diagnosis import Examination
from .listening import Recording, Request, Watcher, listen
from .observation import Head, Observation
from .quoting import shown_url
from .resuming import Resumption, choose_id

_OFFERED = "gzip, deflate, br, zstd"
_RESUME_SECONDS = 5.0
_NEWS_SECONDS = 2.0  # when no event is known to follow, only a repeat can be detected, and a repeat arrives at once
_PROTOCOL_SECONDS = 5.0


async def examine(
    requests: Sequence[Request], seconds: float, *, once: bool | None, enough: asyncio.Event, watchers: Sequence[Watcher | None]
) -> list[Examination]:
    """Examine several paths at once, each with an optional watcher. Raises CannotConnect, in a group, if a path allows no connection.

    `once` None: methods other than GET and HEAD are sent once, followed by the GETs with which client libraries resume an answer.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_Examiner(request, seconds, once=once, enough=enough, watch=watch).examine())
            for request, watch in zip(requests, watchers, strict=True)
        ]
    return [task.result() for task in tasks]


class _Examiner:
    """Examine one path. Setting `enough` stops listening early; the bytes received by then are judged."""

    def __init__(self, request: Request, seconds: float, *, once: bool | None, enough: asyncio.Event, watch: Watcher | None) -> None:
        self._request = request.with_field("Accept-Encoding", "identity")
        self._seconds = seconds
        answers = request.method not in ("GET", "HEAD")
        self._once = answers if once is None else once
        self._resumes_answer = answers and not once
        self._enough = enough
        self._watch = watch

    async def examine(self) -> Examination:
        """Listen, offer compression at the same time, then reconnect with a last event ID. Raises CannotConnect, in a group."""
        url = self._request.url
        async with asyncio.TaskGroup() as group:
            first = group.create_task(listen(self._request, self._seconds, self._enough, self._watch))
            offering = None if self._once else group.create_task(self._offer_compression())
            protocol = group.create_task(_choose_protocol(url.host or "", url.port or 443)) if url.scheme == "https" else None
        seen = first.result()
        resumption = None if self._once or self._enough.is_set() else await self._resume(seen)
        compressed = offering.result() if offering else None
        attempts = None
        if self._resumes_answer and not self._enough.is_set():
            attempts = await attempt_all(self._request, seen, min(self._seconds, _RESUME_SECONDS), self._enough)
        return Examination(shown_url(url), seen, compressed, resumption, attempts, protocol.result() if protocol else "")

    async def _offer_compression(self) -> Observation:
        """Listen for as long as to the first request if the server compresses, else only for the head."""
        return await listen(self._request.with_field("Accept-Encoding", _OFFERED), self._seconds, self._enough, stop_after=_is_plain)

    async def _resume(self, seen: Observation) -> Resumption | None:
        """Resume after an event in the middle, until the events known to follow have arrived or a few seconds have passed.

        When no event has an ID, connect like a new client, and stop at the first event.
        """
        events = (await asyncio.to_thread(dissect, seen.body)).events  # else the other path's arrivals would be timed late
        if not events or seen.head is None or seen.head.status != 200:
            return None
        behind = choose_id(events)
        event = events[behind or 0].event
        assert event is not None
        owed = len(events[0].raw) if behind is None else sum(len(block.raw) for block in events[behind + 1 :])

        def want(recording: Recording) -> None:
            if owed:
                recording.wanted_bytes = owed

        request = self._request.with_field("Last-Event-ID", event.id) if event.id else self._request
        seconds = min(self._seconds, _RESUME_SECONDS if owed else _NEWS_SECONDS)
        return Resumption(behind, await listen(request, seconds, self._enough, want))


def _is_plain(head: Head) -> bool:
    return not head.coding()


async def _choose_protocol(host: str, port: int) -> str:
    """Return the protocol name that a server chooses from HTTP/2 and HTTP/1.1 by ALPN (RFC 7301), empty if the connection fails."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        async with asyncio.timeout(_PROTOCOL_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except (OSError, TimeoutError):
        return ""  # the main request reports the reason
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    return chosen or "http/1.1"
