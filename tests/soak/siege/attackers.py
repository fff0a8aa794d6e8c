"""All attackers and their upstream as a process: `python -m tests.soak.siege.attackers GATEWAY_PORT UPSTREAM_PORT URL SEED ONLY`.

URL is where redirects of the upstream lead. Attacks are made whose names match the regular expression ONLY. The process writes `ready`,
attacks from the line `begin` to the line `end` of its standard input, and then writes how each was answered. It runs only when nothing
else does (SCHED_IDLE): attackers of a real gateway take none of its machine's CPU time.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tests.kit.stack import REPOSITORY
from tests.kit.upstream import ScriptedUpstream
from tests.soak.siege.attack import Attack, Attacker
from tests.soak.siege.evil_upstream import evil_play, prepare
from tests.soak.siege.floods import FLOODS
from tests.soak.siege.heads import HEADS
from tests.soak.siege.streams import STREAMS

ATTACKS: tuple[Attack, ...] = (*HEADS, *STREAMS, *FLOODS)
START_SECONDS, END_SECONDS = 60, 60


@dataclass(frozen=True)
class Attackers:
    """The process, for those who have started it."""

    process: asyncio.subprocess.Process

    async def begin(self) -> None:
        await self._say("begin")

    async def end(self) -> dict[str, Counter[str]]:
        """Stop all attacks, and return how often each was answered in which way."""
        await self._say("end")
        results: dict[str, dict[str, int]] = json.loads(await self.read_line(END_SECONDS))
        return {name: Counter(answers) for name, answers in results.items()}

    async def read_line(self, seconds: float) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            line = await self.process.stdout.readline()
        assert line, "the attackers' process has ended"
        return line.decode().strip()

    async def _say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        await self.process.stdin.drain()


@contextlib.asynccontextmanager
async def start_attackers(gateway_port: int, upstream_port: int, elsewhere: str, seed: int, only: str) -> AsyncIterator[Attackers]:
    """Run the process; its upstream answers until the block ends."""
    arguments = (str(gateway_port), str(upstream_port), elsewhere, str(seed), only)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.soak.siege.attackers",
        *arguments,
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        attackers = Attackers(process)
        assert await attackers.read_line(START_SECONDS) == "ready"
        yield attackers
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _attack(port: int, chance: random.Random, only: str, results: dict[str, Counter[str]]) -> None:
    async with asyncio.TaskGroup() as attacks:
        for number, attack in enumerate(ATTACKS):
            attacker = Attacker(port, f"127.0.0.{10 + number}", random.Random(chance.random()))
            if re.search(only, attack.name):
                attacks.create_task(attack.go_on(attacker, results[attack.name]))


async def _main(gateway_port: int, upstream_port: int, elsewhere: str, seed: int, only: str) -> None:
    prepare()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with ScriptedUpstream(evil_play(elsewhere), port=upstream_port) as upstream:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        assert await commands.readline() == b"begin\n"
        results: dict[str, Counter[str]] = {attack.name: Counter() for attack in ATTACKS}
        attacking = asyncio.create_task(_attack(gateway_port, random.Random(seed), only, results))
        ending = asyncio.create_task(commands.readline())
        while not ending.done():
            await asyncio.wait([attacking, ending], timeout=1, return_when=asyncio.FIRST_COMPLETED)
            upstream.requests.clear()
            if attacking.done():
                await attacking
        attacking.cancel()
        await asyncio.wait([attacking])
        sys.stdout.write(json.dumps(results) + "\n")
        sys.stdout.flush()
        await commands.read()  # until the test is over


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]))
