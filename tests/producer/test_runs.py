import random

from producer.log.event_log import Stored
from producer.log.runs import PIECE_BYTES, Piece, Run


def test_run_behaves_like_a_list_through_all_operations() -> None:
    chance = random.Random(7)
    for _ in range(200):
        run, model, low, high = Run(), list[Stored](), 5000, 5000
        for _ in range(chance.randrange(1, 60)):
            match chance.randrange(4):
                case 0:
                    front = [Stored(low - number, "t", bytes(chance.randrange(1, 40_000))) for number in range(chance.randrange(4))][::-1]
                    run.put_in_front(Run(front), low)
                    model, low = front + model, low - len(front)
                case 1 if model:
                    assert run.evict() == model.pop(0).offset
                    low = low if model else high
                case _:
                    high += chance.randrange(1, 3)
                    model.append(Stored(high, "t", bytes(chance.randrange(1, 40_000))))
                    run.append(model[-1])
            assert (len(run), run.bytes) == (len(model), sum(len(event.block) for event in model))
            check_run(run, model, chance)


def check_run(run: Run, model: list[Stored], chance: random.Random) -> None:
    """Assert that pieces from a random start to a random end are the model's blocks, none too large."""
    after = chance.randrange(4900, 5100)
    upto, most = chance.choice([None, after + 9]), chance.choice([None, 1, 3])
    left = [event for event in model if event.offset > after and (upto is None or event.offset <= upto)]
    while piece := run.piece(after, upto, most):
        taken, left = left[: piece.events], left[piece.events :]
        assert piece == Piece(b"".join(event.block for event in taken), taken[0].offset, taken[-1].offset, len(taken))
        assert len(piece.body) <= PIECE_BYTES or piece.events == 1
        assert most is None or piece.events <= most
        after = piece.last
    assert left == []
