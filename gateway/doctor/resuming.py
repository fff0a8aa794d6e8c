"""Judges ids, and what a reconnection with `Last-Event-ID` brings, against what is known to follow that id."""

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
    """A reconnection: behind which event of the first connection it asked to go on, and what came."""

    behind: int | None
    """Index of the event whose id was sent, among the events of the first connection; None when none had an id."""
    seen: Observation


def choose_id(events: list[Block]) -> int | None:
    """Gives the index of the event to resume behind: one in the middle, so that something is known to follow; None when none has an id."""
    named = [index for index, block in enumerate(events) if block.event is not None and block.event.id]
    return named[(len(named) - 1) // 2] if named else None


def judge_ids(anatomy: Anatomy, quote: Quote) -> Finding:
    """Says whether events can be asked for again at all."""
    events = anatomy.events
    ids = [block.event.id for block in events if block.event is not None and block.event.id]
    if not events:
        return Finding("ids", "note", "no event came", "nothing to tell", "listen longer (--seconds)")
    if not ids:
        means = "whoever reconnects misses what was sent meanwhile, or gets all of it again"
        return Finding(
            "ids", "warning", f"none of {len(events)} events has one", means, "give events an id, and go on behind Last-Event-ID"
        )
    repeated = [name for name, count in collections.Counter(ids).items() if count > 1]
    if repeated:
        means = "a client that was cut off cannot say which of them it saw last"
        return Finding(
            "ids", "warning", f"{len(repeated)} came more than once, such as {quote(repeated[0], 40)}", means, "give each event its own"
        )
    shown = f"{len(ids)} of {len(events)} events have one, such as {quote(ids[-1], 40)}"
    if len(ids) < len(events):
        means = "behind an event without an id a client resumes at the one before, and gets events twice"
        return Finding("ids", "note", shown, means, "give each event an id, unless it is of no lasting use")
    return Finding("ids", "ok", shown)


def judge_resumption(first: Anatomy, again: Resumption, quote: Quote) -> Iterator[Finding]:
    """Says whether a client that comes back gets what it missed, all of it and once."""
    head = again.seen.head
    behind = again.behind
    event = None if behind is None else first.events[behind].event
    asked = f"asked to go on behind {quote(event.id or '', 40)}" if event is not None else "asked again, without an id"
    if head is None or head.status != 200:
        answer = f"{head.status}" if head else "no answer"
        means = "an EventSource that was cut off does not come back" if head else "whoever was cut off waits, or gives up"
        yield Finding("coming back", "problem", f"{asked}: {answer}", means, "answer reconnections with 200 also when the id is unknown")
        return
    yield Finding("coming back", "ok", f"a second request was answered after {head.seconds - again.seen.asked_seconds:.2f} s")
    anatomy = dissect(again.seen.body)
    yield _judge_new_begin(first, anatomy, asked) if behind is None else _judge_order(first.events, behind, again.seen, anatomy, asked)


def _judge_new_begin(first: Anatomy, anatomy: Anatomy, asked: str) -> Finding:
    """Says what somebody gets who comes back to a stream without ids."""
    do = "give events ids, and go on behind Last-Event-ID"
    if not anatomy.events:
        return Finding("resuming", "note", f"{asked}: no event came", "nothing to tell", "listen longer (--seconds)")
    if _key(anatomy.events[0]) == _key(first.events[0]):
        return Finding("resuming", "warning", f"{asked}: begins at the first event again", "whoever is cut off gets all events again", do)
    return Finding("resuming", "warning", f"{asked}: begins with what comes next", "whoever is cut off loses what was sent meanwhile", do)


def _judge_order(before: list[Block], behind: int, seen: Observation, anatomy: Anatomy, asked: str) -> Finding:
    wanted = len(before) - 1 - behind
    came = [block for block in anatomy.events if not _is_gap(block)]
    told = " (an event says that there is a gap)" if len(came) < len(anatomy.events) else ""
    places = {_key(block): index for index, block in reversed(list(enumerate(before)))}
    found = [places.get(_key(block)) for block in came]
    means = "whoever is cut off for a moment loses events, and is not told"
    do = "keep the latest events, and send those behind Last-Event-ID first"
    if not came:
        if not wanted:
            return _cannot_tell(asked)
        waited = seen.ended_seconds - seen.asked_seconds
        return Finding("resuming", "problem", f"{asked}: none of the {wanted} events that are owed came in {waited:.1f} s{told}", means, do)
    place = found[0]
    if place is None:
        if not wanted:
            return _cannot_tell(asked)
        severity: Severity = "warning" if told else "problem"
        shown = f"{asked}: skips, {wanted} events that followed were left out, and newer ones came{told}"
        return Finding("resuming", severity, shown, "whoever was cut off loses events, but is told" if told else means, do)
    if place <= behind:
        return _judge_repeat(place, behind, asked)
    if place > behind + 1:
        return Finding("resuming", "problem", f"{asked}: skips, {place - behind - 1} events were left out{told}", means, do)
    if any(_content(block) != _content(before[index]) for block, index in zip(came, found, strict=True) if index is not None):
        what = "goes on, but the events under these ids are others"
        return Finding(
            "resuming", "problem", f"{asked}: {what}", "ids that are given anew name nothing", "give each event an id of its own"
        )
    return _judge_continuation(found, behind, seen, wanted, asked)


def _judge_repeat(place: int, behind: int, asked: str) -> Finding:
    count = behind - place + 1
    what = "ignored, it begins at the first event again" if place == 0 else f"repeats, {count} events came again"
    means = "whoever is cut off for a moment gets events twice"
    return Finding("resuming", "problem", f"{asked}: {what}", means, "read Last-Event-ID, and begin behind it; a proxy has to pass it on")


def _judge_continuation(found: list[int | None], behind: int, seen: Observation, wanted: int, asked: str) -> Finding:
    known = found[:wanted]
    expected = list(range(behind + 1, behind + 1 + len(known)))
    if known != expected:
        means = "whoever comes back gets events in another order, or not all of them"
        return Finding(
            "resuming", "problem", f"{asked}: goes on, but not with the same events", means, "replay what was sent, in its order"
        )
    if len(known) < wanted and seen.ending != "open":
        shown = f"{asked}: goes on, but ended {wanted - len(known)} events early"
        return Finding("resuming", "problem", shown, "whoever comes back misses the rest", "replay all that followed")
    return Finding("resuming", "ok", f"{asked}: goes on, {len(known)} of {wanted} events that followed came again, in order")


def _cannot_tell(asked: str) -> Finding:
    return Finding("resuming", "note", f"{asked}, the newest one", "nothing was known to follow", "listen longer (--seconds)")


def _is_gap(block: Block) -> bool:
    return block.event is not None and block.event.type in _GAP_TYPES


def _content(block: Block) -> tuple[str, str]:
    assert block.event is not None
    return block.event.type, block.event.data


def _key(block: Block) -> tuple[str, ...]:
    event = block.event
    assert event is not None
    return (event.id,) if event.id else (event.type, event.data)
