"""Twenty and more attacks at once beside ordinary clients: these are not refused and lose nothing, and the gateway's memory stays flat.

After a warm-up come a quiet phase and a phase with all attacks, of SOAK_SECONDS each. Then memory and descriptors must come back. The
attacks are in `tests/soak/siege`, with how many times a second each is made: what a cheap client can do, about 1 MiB a second through the
gateway, for the machine has two cores. Each attacker has an address of its own, because limits count by address. SIEGE_ONLY is a regular
expression: only attacks with a name that it matches are made, to find out which of them does harm.

The gateway has the routes of the compose file and some more, and limits such as an operator sets for a small public service. Ordinary
clients share one address here. They have less than 80 streams open and make less than 50 requests a second. The limits on memory are so
small that attackers reach them within minutes.
"""

import asyncio
import logging
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.auth.signing import SECRET
from tests.kit.publishing import assert_log_has_each_event_once
from tests.kit.stack import REPOSITORY, Stack, clean_environment, free_ports, run_stack
from tests.kit.upstream import Asked, Script, ScriptedUpstream
from tests.kit.waiting import wait_until
from tests.soak.siege.attackers import ATTACKS, start_attackers
from tests.soak.siege.latencies import table
from tests.soak.siege.llm import play
from tests.soak.siege.ordinary import GUARD_SECONDS, Ordinary
from tests.soak.siege.phase import Phase, growth
from tests.soak.test_restarts import read_log
from tests.soak.test_topics import catch_up

SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(2**32)))
WARM_UP_SECONDS = max(SECONDS / 10, 3.0)
ONLY = os.environ.get("SIEGE_ONLY", "")
RECOVERY_SECONDS = 120
LEAST_SECONDS_OF_FIGURES = 60
"""A shorter phase has too few of anything for a p99, and ends before what attackers left behind is as much as it gets."""
MOST_TIMES_SLOWER, MOST_TIMES_LARGER, MOST_GROWTH = 3.0, 1.5, 1.1
FEW_DESCRIPTORS = 10
KEPT_MIB = 32
MOST_MORE_MIB = 300
"""What attackers may have of memory: twice the limits together."""

SETTINGS = {
    "GATEWAY_MAX_STREAMS_PER_CLIENT": "100",
    "GATEWAY_MAX_REQUESTS_PER_SECOND_PER_CLIENT": "100",
    "GATEWAY_MAX_HISTORY_BYTES": str(64 * 2**20),
    "GATEWAY_MAX_KEPT_BYTES": str(KEPT_MIB * 2**20),
    "GATEWAY_MAX_HELD_BODY_BYTES": str(64 * 2**20),
    "GATEWAY_MAX_STORE_BYTES": str(64 * 2**20),
}
ROUTES = """
[[routes]]
path = "/now"
upstream = "{ordinary}"

[[routes]]
path = "/ticks"
upstream = "{ordinary}"

[[routes]]
path = "/llm"
upstream = "{ordinary}"
mode = "resumable"
retain_seconds = 20
orphan_seconds = 10

[[routes]]
path = "/evil/direct"
upstream = "{evil}"

[[routes]]
path = "/evil/shared"
upstream = "{evil}"
mode = "shared"
linger_seconds = 5

[[routes]]
path = "/evil/kept"
upstream = "{evil}"
mode = "resumable"
retain_seconds = 20
orphan_seconds = 10
body_timeout_seconds = 5

[[routes]]
path = "/evil/long"
upstream = "{evil}"
mode = "resumable"
retain_seconds = 3600

[[routes]]
path = "/closed"
upstream = "{evil}"
[routes.auth]
kind = "jwt"
secret_env = "SIEGE_SECRET"
subject_header = "X-User"
"""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS * 3 + 600)]
_log = logging.getLogger("soak")


@dataclass(frozen=True)
class Fort:
    """The stack, and the ports of the upstreams that its routes name."""

    stack: Stack
    ordinary_port: int
    evil_port: int


@pytest.fixture
def fort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fort]:
    ordinary, evil = free_ports(2)
    routes = ROUTES.format(ordinary=f"http://127.0.0.1:{ordinary}", evil=f"http://127.0.0.1:{evil}")
    (tmp_path / "routes.toml").write_text((REPOSITORY / "gateway/routes.toml").read_text() + routes)
    monkeypatch.setenv("SIEGE_SECRET", SECRET)
    monkeypatch.setenv("PYTHONMALLOC", "malloc")  # as in the image
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=400")
    with run_stack(
        tmp_path,
        plain=True,
        GATEWAY_CONFIG=str(tmp_path / "routes.toml"),
        **SETTINGS,
        CONSUMER_STDOUT="false",
    ) as stack:
        yield Fort(stack, ordinary, evil)


@dataclass
class Siege:
    """What came of it."""

    ordinary: Ordinary
    quiet: Phase = field(default_factory=Phase)
    attacked: Phase = field(default_factory=Phase)
    afterwards: Phase = field(default_factory=Phase)
    answers: dict[str, Counter[str]] = field(default_factory=dict)
    """How the rounds of each attack ended."""

    @property
    def is_over(self) -> bool:
        """Whether memory and descriptors have come back, except for answers that are kept in memory for an hour."""
        descriptors, mib = max(self.quiet.descriptors) + FEW_DESCRIPTORS, max(self.quiet.mib) * MOST_TIMES_LARGER + KEPT_MIB
        return bool(self.afterwards.mib) and self.afterwards.descriptors[-1] <= descriptors and self.afterwards.mib[-1] <= mib

    def lines(self) -> list[str]:
        """Return the report."""
        lines = ["", *table(self.quiet.latencies, self.attacked.latencies), ""]
        lines += ["| row | attack | a second | rounds | ended with |", "|---:|---|---:|---:|---|"]
        for attack in ATTACKS:
            told = self.answers[attack.name]
            ends = ", ".join(f"{end} {count:,}" for end, count in told.most_common())
            lines.append(f"| {attack.row or ''} | {attack.name} | {attack.per_second:g} | {told.total():,} | {ends} |")
        lines.append("")
        phases = {"quiet": self.quiet, "attacked": self.attacked, "afterwards": self.afterwards}
        lines += [f"{name}: {phase}" for name, phase in phases.items()]
        mib, descriptors = growth(self.attacked.mib), growth(self.attacked.descriptors)
        lines.append(f"last third of the attacks against the second: {mib:.2f} × the memory, {descriptors:.2f} × the descriptors")
        events = sum(sequence.events for _, sequence in (*self.ordinary.staying, *self.ordinary.returning))
        return [*lines, f"{events:,} events received by ordinary subscribers; {self.ordinary.returns:,} returns of ordinary clients"]

    def faults(self) -> list[str]:
        """Return what is not as it has to be, figures that need time only if there was some."""
        faults = [] if self.is_over else [f"afterwards: {self.afterwards}"]
        for attack in ATTACKS:
            told = self.answers[attack.name]
            faults += [f"{attack.name}: {end} {count}" for end, count in told.items() if not attack.is_right(end)]
            if re.search(ONLY, attack.name) and not told:
                faults.append(f"{attack.name}: was not made")
        if (most := max(self.attacked.mib)) > max(self.quiet.mib) + MOST_MORE_MIB:
            faults.append(f"{most:.0f} MiB")
        if SECONDS < LEAST_SECONDS_OF_FIGURES:
            return faults
        faults += [f"{name} grow by {times:.2f}" for name, times in self._growth().items() if times > MOST_GROWTH]
        for kind in self.quiet.latencies.kinds:
            times = self.attacked.latencies.percentiles(kind)[1] / self.quiet.latencies.percentiles(kind)[1]
            if times > MOST_TIMES_SLOWER:
                faults.append(f"{kind}: p99 is {times:.2f} times that of the quiet phase")
        return faults

    def _growth(self) -> dict[str, float]:
        return {"memory": growth(self.attacked.mib), "descriptors": growth(self.attacked.descriptors)}


async def test_ordinary_clients_do_not_notice_twenty_attacks_at_once(fort: Fort, tmp_path: Path) -> None:
    _log.info("seed %d, %.0f seconds", SEED, SECONDS)
    gateway, url = fort.stack.gateway, fort.stack.url
    siege = Siege(Ordinary(url, random.Random(SEED)))

    def answer(asked: Asked) -> Script:
        upstream.requests.clear()
        return play(asked)

    elsewhere = f"{gateway.status_url}/metrics"
    timeout = aiohttp.ClientTimeout(None, sock_read=GUARD_SECONDS)
    async with (
        ScriptedUpstream(answer, port=fort.ordinary_port) as upstream,
        start_attackers(int(url.rpartition(":")[2]), fort.evil_port, elsewhere, SEED, ONLY) as attackers,
        aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(siege.ordinary.live(http))
            await siege.afterwards.go_on(gateway, siege.ordinary, http, WARM_UP_SECONDS)
            siege.afterwards = Phase()
            await siege.quiet.go_on(gateway, siege.ordinary, http, SECONDS)
            await attackers.begin()
            await siege.attacked.go_on(gateway, siege.ordinary, http, SECONDS)
            siege.answers = await attackers.end()
            until = time.monotonic() + RECOVERY_SECONDS
            while not siege.is_over and time.monotonic() < until:
                await siege.afterwards.go_on(gateway, siege.ordinary, http, 1)
            siege.ordinary.stopping.set()
        for target, sequence in siege.ordinary.returning:
            await catch_up(http, target, sequence)
    _log.info("%s", "\n".join(siege.lines()))
    assert siege.faults() == []
    _check_logs(fort.stack, siege.ordinary, tmp_path)


def _check_logs(stack: Stack, ordinary: Ordinary, directory: Path) -> None:
    """Check that the producer and the consumer have each event once, and that the gateway met nothing that it did not expect."""
    newest = {topic.acknowledged[-1][0] for topic in ordinary.topics}
    wait_until(lambda: newest <= {record["id"] for record in read_log(stack.log_dir)}, "the last events in the log", pause=0.5)
    assert_log_has_each_event_once(read_log(stack.log_dir), ordinary.topics, ("flood",))
    for command in (["consumer", "verify", str(stack.log_dir)], ["producer", "check", str(directory / "producer")]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=GUARD_SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
    text = stack.gateway.output.read_text()
    assert "Traceback" not in text, text[max(0, text.find("Traceback") - 500) :][:3000]
    assert [line for line in stack.gateway.log() if line["level"] == "error"] == []
