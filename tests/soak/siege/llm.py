"""The upstream of ordinary clients: a language model, a ticker and a resource, each at a steady rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Act, Asked, Script, chunk

TICKS, TICK_SECONDS = 25, 0.2
TOKENS, TOKEN_SECONDS = 40, 0.05
STRANGERS_TOKENS = 3
LLM_BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Which trees stand in the park?"}]}'


def llm_key(client: int, number: int) -> str:
    """Return the Idempotency-Key of a client's request. Attackers guess it."""
    return f"alice-{client}-{number}"


def llm_credential(client: int) -> str:
    """Return the `X-Api-Key` of a client. Attackers do not know it."""
    return f"alice-secret-{client}"


def play(asked: Asked) -> Script:
    """Answer with events that say whose they are, their number and when they were sent."""
    path = asked.target.partition("?")[0]
    if path == "/now":
        return [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"]
    if path == "/ticks":
        return [EVENT_STREAM_HEAD, Act(_pace("tick", TICKS, TICK_SECONDS)), LAST_CHUNK]
    owner = asked.header("X-Api-Key") or "stranger"
    tokens = TOKENS if owner.startswith("alice-secret") else STRANGERS_TOKENS
    return [EVENT_STREAM_HEAD, Act(_pace(owner, tokens, TOKEN_SECONDS)), LAST_CHUNK]


def _pace(owner: str, count: int, pause: float) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def send(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun = time.perf_counter()
        for number in range(1, count + 1):
            await asyncio.sleep(begun + number * pause - time.perf_counter())
            writer.write(chunk(f"data: {owner} {number} {time.perf_counter()}\n\n".encode()))
            await writer.drain()

    return send
