"""Send the requests with which client libraries resume an answer."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

from eventstream.request import parse_url
from gateway.modes.resumable.naming import JsonPointer

from .anatomy import Block, dissect
from .conventions import Attempt
from .listening import CannotConnect, Recording, Request, listen
from .observation import Head, Observation
from .resuming import choose_id

_ID, _RESPONSE_ID, _NUMBER = JsonPointer(["id"]), JsonPointer(["response", "id"]), JsonPointer(["sequence_number"])
_SEE_OTHER = 303  # makes it a GET, without credentials for another origin


async def attempt_all(request: Request, seen: Observation, seconds: float, enough: asyncio.Event) -> list[Attempt] | None:
    """Try each convention that fits an answer once, for at most `seconds` each. Return None without events, or if stopped early."""
    events = (await asyncio.to_thread(dissect, seen.body)).events
    if not events or seen.head is None or seen.head.status != 200:
        return None
    fitting = {attempt.url: attempt for attempt in _fitting(request, seen.head, events)}  # of equal URLs the library's own counts
    attempts = [replace(attempt, seen=await _try(request, attempt, events, seconds, enough)) for attempt in fitting.values()]
    return None if enough.is_set() else attempts


def _fitting(request: Request, head: Head, events: list[Block]) -> Iterator[Attempt]:
    if location := head.get("Location") or (f"/streams/{head.get('Stream-Id')}" if head.get("Stream-Id") else ""):
        yield Attempt("at its Location or Stream-Id", "", location)
    if (behind := choose_id(events)) is not None:
        yield Attempt("on the path, after Last-Event-ID", "", "", behind + 1)
    path, query = request.url.raw_path.rstrip("/"), request.url.raw_query_string
    if head.get("X-Vercel-AI-UI-Message-Stream") and (name := _ID.read(request.body or b"")):
        url = f"{path}/{quote(str(name), safe='')}/stream" + (f"?{query}" if query else "")
        yield Attempt("by name at {api}/{id}/stream (AI SDK)", "ai-sdk", url)
    data = next((block.event.data.encode() for block in events if block.event is not None), b"")
    if _NUMBER.read(data) is not None and (name := _RESPONSE_ID.read(data)):
        url = f"{path}/{quote(str(name), safe='')}?{query}{'&' if query else ''}stream=true"
        yield Attempt("at /responses/{id}?stream=true (OpenAI Responses)", "openai-responses", url)
    if "/runs/" in (run := (head.get("Content-Location") or "").rstrip("/")):
        yield Attempt("at Content-Location + /stream (LangGraph)", "langgraph", f"{run}/stream")


async def _try(request: Request, attempt: Attempt, events: list[Block], seconds: float, enough: asyncio.Event) -> Observation:
    event = events[attempt.first - 1].event if attempt.first else None
    owed = sum(len(block.raw) for block in events[attempt.first :])

    def want(recording: Recording) -> None:
        recording.wanted_bytes = owed or recording.wanted_bytes

    try:
        again = request.redirected(_SEE_OTHER, parse_url(attempt.url, request.url) if attempt.url else request.url)
        again = again.with_field("Last-Event-ID", event.id or "") if event is not None else again
        return await listen(again, seconds, enough, want)
    except (ValueError, CannotConnect) as error:  # a field of the answer is no URL, or one of another server that is down
        return Observation(0.0, failure=str(error))
