"""Whatever goes wrong, each subscriber gets every event once, in order, byte for byte, or is told exactly which are missing.

It runs for ten seconds, or for `SOAK_SECONDS`; `SOAK_SEED` repeats the choices of an earlier run.
"""

import logging
import os
import random
from pathlib import Path

import pytest

from tests.kit.routed_gateway import running, shared
from tests.shared.chaos import Chaos, Client
from tests.shared.event_log import WILD, WITHOUT_IDS
from tests.shared.proof import Proof
from tests.shared.upstream import Resume, Topic, Upstream, cut_at_random

SECONDS = float(os.environ.get("SOAK_SECONDS", "10"))
SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(2**32)))
KILOBYTES = 1000

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 180)]
_log = logging.getLogger("soak")


def topic(path: str, rng: random.Random, *, resume: Resume = "exact", ids: bool = True) -> Topic:
    return Topic(path, WILD if ids else WITHOUT_IDS, resume=resume, rng=rng, pieces=cut_at_random(rng), retry=10)


async def test_every_event_comes_once_or_is_named_as_missing(tmp_path: Path) -> None:
    print(f"SOAK_SEED={SEED}")  # noqa: T201  # pytest shows it when the test fails
    rng = random.Random(SEED)
    async with Upstream() as upstream:
        routes = [
            shared("/exact", upstream.url, heartbeat_seconds=0.2),
            shared("/short", upstream.url, heartbeat_seconds=0.2, history_max_blocks=40),
            shared("/small", upstream.url, history_max_bytes=100 * KILOBYTES, linger_seconds=0.2),
            shared("/limited", upstream.url, max_connection_seconds=0.5),
            shared("/unable", upstream.url, history_max_blocks=200),
            shared("/assigned", upstream.url, ids="assign", history_max_blocks=200),
            shared("/without", upstream.url),
        ]
        async with running(routes, tmp_path, max_history_bytes=4_000 * KILOBYTES) as gateway:
            chaos = Chaos(upstream, gateway, rng)
            strict: list[Client] = []
            for path, resume in (("/exact", "exact"), ("/short", "inclusive"), ("/small", "exact"), ("/limited", "exact")):
                news = topic(path, rng, resume=resume)  # type: ignore[arg-type]
                strict += chaos.add(news, 6, proves=lambda name, news=news: Proof(news.log, name))  # type: ignore[misc]
            unable, assigned, without = (
                topic("/unable", rng, resume="409"),
                topic("/assigned", rng, ids=False),
                topic("/without", rng, ids=False),
            )
            told = chaos.add(unable, 4, proves=lambda name: Proof(unable.log, name, gaps_allowed=True))
            told += chaos.add(assigned, 4, proves=lambda name: Proof(assigned.log, name, gaps_allowed=True, assigned=True))
            chaos.add(without, 4, proves=lambda name: Proof(without.log, name, gaps_allowed=True), resumes=False)
            await chaos.rage(SECONDS)
    _log.info(chaos.summary())
    assert chaos.happened["gateway restart"] + chaos.happened["gateway crash"] > 0, chaos.happened
    assert chaos.happened["upstream restart"] > 0, chaos.happened
    assert sum(client.connections for client in strict) >= 2 * len(strict)
    assert all(client.proof.missed == set() for client in strict)
    assert any(client.proof.missed for client in told), "no event was ever missing, so no gap event was proved"
