"""Send the requests with which client libraries resume an answer."""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

from eventstream.request import parse_url
from gateway.modes.resumable.naming import JsonPointer

from .anatomy import Anatomy, Block
from .conventions import Attempt
from .listening import CannotConnect, Recording, Request, listen
from .observation import Head, Observation
from .resuming import choose_id

_ID, _RESPONSE_ID, _NUMBER = JsonPointer(["id"]), JsonPointer(["response", "id"]), JsonPointer(["sequence_number"])
_SEE_OTHER = 303  # makes it a GET, without credentials for another origin


class _Plan(NamedTuple):
    way: str
    preset: str
    url: str
    """Relative to the URL of the answer."""
    behind: int | None = None


async def attempt_all(request: Request, head: Head, anatomy: Anatomy, seconds: float, enough: asyncio.Event) -> list[Attempt]:
    """Try each convention that fits an answer once, for at most `seconds` each."""
    attempts = []
    for plan in {plan.url: plan for plan in _plans(request, head, anatomy.events)}.values():
        again = _request(request, plan, anatomy.events)
        if again is None or enough.is_set():
            continue
        first = 0 if plan.behind is None else plan.behind + 1
        owed = sum(len(block.raw) for block in anatomy.events[first:])

        def want(recording: Recording, owed: int = owed) -> None:
            recording.wanted_bytes = owed or recording.wanted_bytes

        try:
            seen = await listen(again, seconds, enough, want)
        except CannotConnect as error:  # its Location is on another server
            seen = Observation(0.0, failure=error.reason)
        attempts.append(Attempt(plan.way, plan.preset, plan.behind, seen))
    return attempts


def _plans(request: Request, head: Head, events: list[Block]) -> Iterator[_Plan]:
    """Yield the conventions that fit. Of two with the same URL the last is the client library's."""
    location = head.get("Location") or (f"/streams/{head.get('Stream-Id')}" if head.get("Stream-Id") else "")
    if location:
        yield _Plan("at its Location or Stream-Id", "", location)
    if (behind := choose_id(events)) is not None:
        yield _Plan("on the path, after Last-Event-ID", "", "", behind)
    path, query = request.url.raw_path.rstrip("/"), request.url.raw_query_string
    if head.get("X-Vercel-AI-UI-Message-Stream") and (name := _ID.read(request.body or b"")):
        url = f"{path}/{quote(str(name), safe='')}/stream" + (f"?{query}" if query else "")
        yield _Plan("by name at {api}/{id}/stream (AI SDK)", "ai-sdk", url)
    data = next((block.event.data.encode() for block in events if block.event is not None), b"")
    if _NUMBER.read(data) is not None and (name := _RESPONSE_ID.read(data)):
        url = f"{path}/{quote(str(name), safe='')}?{query}{'&' if query else ''}stream=true"
        yield _Plan("at /responses/{id}?stream=true (OpenAI Responses)", "openai-responses", url)
    if "/runs/" in (run := (head.get("Content-Location") or "").rstrip("/")):
        yield _Plan("at Content-Location + /stream (LangGraph)", "langgraph", f"{run}/stream")


def _request(request: Request, plan: _Plan, events: list[Block]) -> Request | None:
    """Return the GET of a plan, or None if a header field of the answer is no URL."""
    try:
        url = parse_url(plan.url, request.url) if plan.url else request.url
    except ValueError:
        return None
    again = request.redirected(_SEE_OTHER, url)
    event = events[plan.behind].event if plan.behind is not None else None
    return again.with_field("Last-Event-ID", event.id or "") if event is not None else again
