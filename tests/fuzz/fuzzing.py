"""Run one check on very many inputs: for SECONDS_EACH in `make fuzz`, a few hundred otherwise."""

import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For how long each target runs; 0: for its EXAMPLES, the same ones each time."""
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(2**32)))
EXAMPLES = 100
_ROUND_EXAMPLES = 250  # of one seed: a failure must show again within this number
_LONGEST_SHRINKING_SECONDS = 600
_log = logging.getLogger("fuzz")

TARGET = [pytest.mark.fuzz, pytest.mark.timeout(SECONDS + _LONGEST_SHRINKING_SECONDS)]
"""The marks of a module of targets."""

Edit = tuple[str, int, int, bytes]


def fuzz(check: Callable[..., None], *strategies: st.SearchStrategy[Any], examples: int = EXAMPLES, shrinks: bool = True) -> None:
    """Call `check` with what the strategies draw. What it raises fails the test, after the input is made as small as possible if it
    `shrinks`: that takes minutes where a failure takes a second."""
    executions = 0

    def counted(drawn: tuple[Any, ...]) -> None:
        nonlocal executions
        executions += 1
        check(*drawn)

    def run(number: int, count: int) -> None:
        phases = [Phase.generate, Phase.shrink] if shrinks else [Phase.generate]
        options = settings(max_examples=count, phases=phases, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        seed(number)(options(given(st.tuples(*strategies))(counted)))()

    if not SECONDS:
        run(0, examples)
        return
    began, number = time.monotonic(), SEED
    try:
        while time.monotonic() - began < SECONDS:
            _log.debug("%s: seed %d", check.__name__, number)
            run(number, _ROUND_EXAMPLES)
            number += 1
    finally:
        _log.info("%s: %d executions in %.0f s, seeds %d to %d", check.__name__, executions, time.monotonic() - began, SEED, number)


def _edit(text: bytes, edits: Sequence[Edit]) -> bytes:
    for kind, at, length, piece in edits:
        begin = at % (len(text) + 1)
        end = begin + length
        match kind:
            case "insert":
                text = text[:begin] + piece + text[begin:]
            case "replace":
                text = text[:begin] + piece + text[end:]
            case "delete":
                text = text[:begin] + text[end:]
            case "repeat":
                text = text[:end] + text[begin:end] + text[end:]
            case "move":
                moved, rest = text[begin:end], text[:begin] + text[end:]
                other = length * 7919 % (len(rest) + 1)
                text = rest[:other] + moved + rest[other:]
    return text


def mutated(corpus: Sequence[bytes], pieces: Sequence[bytes], most_edits: int = 6) -> st.SearchStrategy[bytes]:
    """Draw texts of the corpus, and what comes of them by a few edits with the pieces and with any bytes."""
    kinds = st.sampled_from(["insert", "replace", "delete", "repeat", "move"])
    piece = st.sampled_from(list(pieces)) | st.binary(min_size=1, max_size=3)
    edit = st.tuples(kinds, st.integers(0, 4000), st.integers(0, 12), piece)
    return st.builds(_edit, st.sampled_from(list(corpus)), st.lists(edit, max_size=most_edits))


def joined(pieces: Sequence[bytes], most: int = 30) -> st.SearchStrategy[bytes]:
    """Draw pieces one behind the other."""
    return st.lists(st.sampled_from(list(pieces)), max_size=most).map(b"".join)
