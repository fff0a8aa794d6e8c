"""Judge IDs, and compare what a reconnection with `Last-Event-ID` gets with the events known to follow that ID."""

import collections
from collections.abc import Iterator
from dataclasses import dataclass

from .anatomy import Anatomy, Block, dissect
from .findings import Finding, Severity
from .observation import Observation
from .quoting import Quote

_GAP_TYPES = {"gap", "reset"}


@dataclass(frozen=True, slots=True)
class Resumption:
    """A reconnection: the event of the first connection that it resumes after, and the answer."""

    behind: int | None
    """Index of the event whose ID was sent, among the events of the first connection; None if none had an ID."""
    seen: Observation


def choose_id(events: list[Block]) -> int | None:
    """Return the index of the event to resume after: one in the middle, so that events are known to follow. None if none has an ID."""
    named = [index for index, block in enumerate(events) if block.event is not None and block.event.id]
    return named[(len(named) - 1) // 2] if named else None


def judge_ids(anatomy: Anatomy, quote: Quote) -> Finding:
    """Report whether the events have IDs, so that clients can resume."""
    events = anatomy.events
    ids = [block.event.id for block in events if block.event is not None and block.event.id]
    if not events:
        return Finding("ids", "note", "no event arrived", "nothing to judge", "listen longer (--seconds)")
    if not ids:
        means = "a reconnecting client misses events, or gets all of them again"
        return Finding(
            "ids", "warning", f"none of {len(events)} events has one", means, "give events an id, and resume after Last-Event-ID"
        )
    repeated = [name for name, count in collections.Counter(ids).items() if count > 1]
    if repeated:
        means = "a reconnecting client cannot say which of these events it saw last"
        return Finding(
            "ids", "warning", f"{len(repeated)} used more than once, such as {quote(repeated[0], 40)}", means, "give each event its own id"
        )
    shown = f"{len(ids)} of {len(events)} events have one, such as {quote(ids[-1], 40)}"
    if len(ids) < len(events):
        means = "after an event without an id, a client resumes after an earlier event and gets events twice"
        return Finding("ids", "note", shown, means, "give each event an id, unless it need not be replayed")
    return Finding("ids", "ok", shown)


def judge_resumption(first: Anatomy, again: Resumption, quote: Quote) -> Iterator[Finding]:
    """Report whether a reconnecting client gets each event that it missed exactly once."""
    head = again.seen.head
    behind = again.behind
    event = None if behind is None else first.events[behind].event
    asked = f"asked to resume after {quote(event.id or '', 40)}" if event is not None else "reconnected without an id"
    if head is None or head.status != 200:
        answer = f"{head.status}" if head else "no answer"
        means = "a disconnected EventSource gives up for good" if head else "a disconnected client waits or gives up"
        yield Finding("coming back", "problem", f"{asked}: {answer}", means, "answer reconnections with 200, even if the id is unknown")
        return
    yield Finding("coming back", "ok", f"a second request was answered after {head.seconds - again.seen.sent_seconds:.2f} s")
    anatomy = dissect(again.seen.body)
    yield _judge_new_begin(first, anatomy, asked) if behind is None else _judge_order(first.events, behind, again.seen, anatomy, asked)


def _judge_new_begin(first: Anatomy, anatomy: Anatomy, asked: str) -> Finding:
    """Report what a client gets that reconnects to a stream without IDs."""
    do = "give events ids, and resume after Last-Event-ID"
    if not anatomy.events:
        return Finding("resuming", "note", f"{asked}: no event arrived", "nothing to judge", "listen longer (--seconds)")
    if key_of(anatomy.events[0]) == key_of(first.events[0]):
        return Finding(
            "resuming", "warning", f"{asked}: starts again at the first event", "a reconnecting client gets all events again", do
        )
    return Finding("resuming", "warning", f"{asked}: starts with new events", "a reconnecting client misses events", do)


def _judge_order(before: list[Block], behind: int, seen: Observation, anatomy: Anatomy, asked: str) -> Finding:
    wanted = len(before) - 1 - behind
    came = [block for block in anatomy.events if not _is_gap(block)]
    told = " (an event announces the gap)" if len(came) < len(anatomy.events) else ""
    places = {key_of(block): index for index, block in reversed(list(enumerate(before)))}
    found = [places.get(key_of(block)) for block in came]
    means = "a client that is disconnected for a moment misses events without notice"
    do = "keep the latest events, and replay those after Last-Event-ID first"
    if not came:
        if not wanted:
            return _cannot_tell(asked)
        waited = seen.ended_seconds - seen.sent_seconds
        return Finding("resuming", "problem", f"{asked}: none of the {wanted} missed events arrived within {waited:.1f} s{told}", means, do)
    place = found[0]
    if place is None:
        if not wanted:
            return _cannot_tell(asked)
        severity: Severity = "warning" if told else "problem"
        shown = f"{asked}: skips all {wanted} missed events and starts with newer ones{told}"
        return Finding("resuming", severity, shown, "a reconnecting client misses events, but gets notice" if told else means, do)
    if place <= behind:
        return _judge_repeat(place, behind, asked)
    if place > behind + 1:
        return Finding("resuming", "problem", f"{asked}: skips {place - behind - 1} events{told}", means, do)
    if any(_content(block) != _content(before[index]) for block, index in zip(came, found, strict=True) if index is not None):
        what = "resumes, but these ids now name other events"
        return Finding("resuming", "problem", f"{asked}: {what}", "a reused id does not identify an event", "give each event its own id")
    return _judge_continuation(found, behind, seen, wanted, asked)


def _judge_repeat(place: int, behind: int, asked: str) -> Finding:
    count = behind - place + 1
    what = "ignored: starts again at the first event" if place == 0 else f"repeats {count} events"
    means = "a client that is disconnected for a moment gets events twice"
    return Finding("resuming", "problem", f"{asked}: {what}", means, "read Last-Event-ID and resume after it; proxies must forward it")


def _judge_continuation(found: list[int | None], behind: int, seen: Observation, wanted: int, asked: str) -> Finding:
    known = found[:wanted]
    expected = list(range(behind + 1, behind + 1 + len(known)))
    if known != expected:
        means = "a reconnecting client gets events in another order, or not all of them"
        return Finding(
            "resuming",
            "problem",
            f"{asked}: resumes, but with different events",
            means,
            "replay the events in the order in which they were sent",
        )
    if len(known) < wanted and seen.ending != "open":
        shown = f"{asked}: resumes, but ends {wanted - len(known)} events early"
        return Finding("resuming", "problem", shown, "a reconnecting client misses the rest", "replay all missed events")
    return Finding("resuming", "ok", f"{asked}: resumes, {len(known)} of {wanted} missed events arrived, in order")


def _cannot_tell(asked: str) -> Finding:
    return Finding("resuming", "note", f"{asked}, the newest one", "no event is known to follow", "listen longer (--seconds)")


def _is_gap(block: Block) -> bool:
    return block.event is not None and block.event.type in _GAP_TYPES


def _content(block: Block) -> tuple[str, str]:
    assert block.event is not None
    return block.event.type, block.event.data


def key_of(block: Block) -> tuple[str, ...]:
    """Return what two copies of an event have in common: the ID, or type and data without one."""
    event = block.event
    assert event is not None
    return (event.id,) if event.id else (event.type, event.data)
