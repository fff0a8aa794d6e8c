"""Judge whether an answer to a POST, such as a chat's, can be resumed by the requests that client libraries send."""

from collections.abc import Sequence
from dataclasses import dataclass

from .anatomy import Anatomy, dissect
from .findings import Finding
from .observation import Observation
from .resuming import key_of

_NOT_SENT = Observation(0.0)
_MEANS = "a reload or a lost connection loses the answer, or the service is asked again"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may resume an answer, and what it got."""

    way: str
    preset: str
    """The gateway's preset for it; empty without one."""
    url: str
    """Relative to the URL of the answer."""
    first: int = 0
    """Index of the first event that is asked for, by the ID of the one before it."""
    seen: Observation = _NOT_SENT


def judge_conventions(first: Anatomy, attempts: Sequence[Attempt]) -> Finding:
    """Report how an answer can be resumed, or what to do."""
    faults = [(attempt, _fault(first, attempt)) for attempt in attempts]
    ways = [attempt.way for attempt, fault in faults if not fault]
    failed = [f"{attempt.way}: {fault}" for attempt, fault in faults if fault]
    preset = next((attempt.preset for attempt, fault in faults if fault and attempt.preset), "")
    seen = "; ".join([*ways, *(["not " + ", not ".join(failed)] if failed else [])])
    if ways and not preset:
        return Finding("resuming the answer", "ok", seen)
    table = f' and preset = "{preset}" in its [routes.resume]' if preset else ""
    seen = seen if ways else f"not at all: {seen or 'it has neither an id nor a name'}"
    means = "the client's library cannot resume by itself" if ways else _MEANS
    return Finding("resuming the answer", "note", seen, means, f'set mode = "resumable"{table} on this route of the gateway')


def _fault(first: Anatomy, attempt: Attempt) -> str:
    """Return why an attempt did not resume the answer, empty if it did."""
    head = attempt.seen.head
    if head is None:
        return "no answer"
    if head.status == 204 and attempt.preset == "ai-sdk":
        return "204, as for no answer; a complete one is replayed if its start has a messageId"
    if head.status != 200 or head.media_type() != "text/event-stream":
        return str(head.status) if head.status != 200 else "no event stream"
    expected = first.events[attempt.first :]
    came = dissect(attempt.seen.body).events
    if not came:
        return "no event arrived" if expected else ""
    return "" if expected and key_of(came[0]) == key_of(expected[0]) else "other events arrived"
