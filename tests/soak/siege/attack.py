"""What an attack is, and a client that carries one out again and again at a bounded rate."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.kit.downstream import Downstream, Fields, FramingError

UNDER_WAY = "under way at the end"
LIMITED = frozenset(("429", "503", UNDER_WAY))
"""How any round may end: the attacker has reached a limit, or the test is over."""


class Attacker:
    """A client with an address of its own."""

    def __init__(self, port: int, address: str, chance: random.Random) -> None:
        self.port = port
        self.address = address
        self.chance = chance
        self.rounds = 0
        """How many were begun; tells one round from another."""
        self.streams: list[str] = []
        """IDs of kept streams to come back to."""

    def connect(self, receive_buffer: int | None = None) -> Downstream:
        return Downstream(self.port, source=self.address, receive_buffer=receive_buffer)

    async def ask(self, target: str, method: str = "GET", headers: Fields = (), body: bytes = b"") -> str:
        """Send one request and return how it was answered; the connection is closed behind the head."""
        async with self.connect() as client:
            await client.ask(target, method, headers, body)
            return await status(client, method)

    async def send(self, sent: bytes) -> str:
        """Send bytes, and return how they were answered."""
        async with self.connect() as client:
            await client.send(sent)
            return await status(client)


async def status(client: Downstream, method: str = "GET") -> str:
    """Return the status of the next answer, or `closed` without one."""
    try:
        return str((await client.answer(method)).head.status)
    except FramingError:
        if client.end is None:
            raise
        return "closed"


@dataclass(frozen=True)
class Attack:
    """What is done `per_second` times a second, unless `at_once` rounds of it are under way. `right` are the answers that it may get."""

    row: int
    """Of the table of attacks that this project was once found to fall for, beside those that it withstood (0)."""
    name: str
    run: Callable[[Attacker], Awaitable[str]]
    right: frozenset[str]
    per_second: float
    at_once: int = 4

    async def go_on(self, attacker: Attacker, results: Counter[str]) -> None:
        """Attack until cancelled, and count how each round was answered."""
        loop = asyncio.get_running_loop()
        due = loop.time() + attacker.chance.random() * min(1.0, 1 / self.per_second)
        async with asyncio.TaskGroup() as rounds:
            under_way = 0

            async def one() -> None:
                nonlocal under_way
                under_way += 1
                result = UNDER_WAY
                try:
                    result = await self._result(attacker)
                finally:
                    under_way -= 1
                    results[result] += 1

            while True:
                await asyncio.sleep(due - loop.time())
                due = max(due, loop.time() - 1) + 1 / self.per_second
                if under_way < self.at_once:
                    attacker.rounds += 1
                    rounds.create_task(one())

    async def _result(self, attacker: Attacker) -> str:
        try:
            return await self.run(attacker)
        except ConnectionError:
            return "reset"
        except AssertionError as error:  # of a client that waited in vain
            return f"AssertionError: {str(error)[:200]}"
        except OSError as error:
            return f"{type(error).__name__}: {error}"

    def is_right(self, result: str) -> bool:
        return result in self.right or result in LIMITED
