"""The proof detects every fault of a subscriber's stream."""

import random
from collections.abc import Callable

import pytest

from tests.shared.event_log import PLAIN, WILD, EventLog, Style
from tests.shared.proof import Proof
from tests.shared.reception import Reception

GAP = b'event: gap\ndata: {"asked": "2", "first_retained": "5", "reason": "gone"}\n\n'


def log_of(count: int, style: Style = PLAIN) -> EventLog:
    log = EventLog(style, random.Random(7))
    log.publish(count)
    return log


def prove(log: EventLog, blocks: list[bytes], *, gaps_allowed: bool = False) -> Proof:
    proof = Proof(log, gaps_allowed=gaps_allowed)
    for block in blocks:
        proof.take(block)
    return proof


WRONGS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "lost": (lambda blocks: [*blocks[:3], *blocks[4:]], "event 5 came when 4 was due"),
    "repeated": (lambda blocks: [*blocks[:3], *blocks[2:]], "event 3 came again"),
    "swapped": (lambda blocks: [blocks[0], blocks[2], blocks[1]], "event 3 came when 2 was due"),
    "altered": (lambda blocks: [blocks[0], blocks[1].replace(b" ", b"", 1)], "event 2 is"),
    "a line too many": (lambda blocks: [blocks[0], blocks[1] + b"\n"], "event 2 is"),
    "invented": (lambda blocks: [blocks[0], b": ping\n\n"], "a block that was never sent"),
    "gap that is not allowed": (lambda blocks: [*blocks[:2], GAP, *blocks[4:]], "came a gap event"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_fault_is_detected(wrong: str) -> None:
    log = log_of(6)
    commit, says = WRONGS[wrong]
    with pytest.raises(AssertionError, match=says):
        prove(log, commit(log.blocks))


def test_gap_that_names_the_missing_events_is_accepted() -> None:
    log = log_of(6)
    proof = prove(log, [*log.blocks[:2], GAP, *log.blocks[4:]], gaps_allowed=True)
    assert proof.missed == {3, 4}
    assert (proof.at, proof.received) == (6, 4)


@pytest.mark.parametrize(("before", "behind"), [(2, 3), (2, 5), (1, 4), (3, 4)])
def test_gap_that_names_other_events_is_detected(before: int, behind: int) -> None:
    log = log_of(6)
    with pytest.raises(AssertionError):
        prove(log, [*log.blocks[:before], GAP, *log.blocks[behind:]], gaps_allowed=True)


def test_reception_returns_the_blocks_of_any_log_wherever_its_bytes_are_cut() -> None:
    """Heartbeats, which come between blocks, are no part of them."""
    log = log_of(300, WILD)
    rng = random.Random(3)
    received, proof = Reception(), Proof(log, begin=0)
    pieces = [piece for number in range(1, 301) for piece in (b":\n" * rng.randint(0, 2), log.wire(number - 1, number))]
    wire = b"".join(pieces)
    while wire:
        size = rng.randint(1, 300)
        for block in received.feed(wire[:size]):
            proof.take(block)
        wire = wire[size:]
    assert proof.received == 300
    assert received.beats == sum(piece.count(b":\n") for piece in pieces if not piece.strip(b":\n"))
    assert received.last_event_id == "300"


def test_unfinished_block_is_discarded_with_its_connection() -> None:
    received = Reception()
    assert received.feed(b"id: 1\ndata: 1 x\n\nid: 2\ndata: 2") == [b"id: 1\ndata: 1 x\n\n"]
    assert received.rest == b"id: 2\ndata: 2"
    received.open()
    assert received.feed(b":\nid: 2\ndata: 2 y\n\n") == [b"id: 2\ndata: 2 y\n\n"]
    assert (received.beats, received.last_event_id) == (1, "2")
