"""Attacks by many or slow requests and bodies, and by connections that say nothing."""

import asyncio
import contextlib

from tests.kit.downstream import Downstream
from tests.soak.siege.attack import Attack, Attacker, status

_HELD_BODY_BYTES = 16 * 2**20 - 1
_PIECE = bytes(2**20)
_PIECE_SECONDS = 1.0
_HOLD_SECONDS = 8.0
_BURST = 50


async def _pipeline(attacker: Attacker) -> str:
    """Send a burst of requests over one connection; return the last answer."""
    async with attacker.connect() as client:
        request = b"GET /evil/direct/ok HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % attacker.port
        await client.send(request * _BURST)
        told = ""
        for _ in range(_BURST):
            answer = await client.answer()
            await answer.to_end()
            told = str(answer.head.status)
        return told


async def _say_nothing(attacker: Attacker) -> str:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(25):
            await stack.enter_async_context(attacker.connect())
        await asyncio.sleep(_HOLD_SECONDS)
    return "held"


async def _drip(attacker: Attacker, client: Downstream) -> str:
    """Send a byte a second until there is an answer."""
    answered = asyncio.ensure_future(status(client))
    try:
        while not answered.done():
            await client.send(b"x")
            await asyncio.wait([answered], timeout=1)
        return answered.result()
    finally:
        answered.cancel()


async def _slow_head(attacker: Attacker) -> str:
    async with attacker.connect() as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        return await _drip(attacker, client)


async def _slow_body(attacker: Attacker) -> str:
    async with attacker.connect() as client:
        await client.ask("/evil/kept/one", "POST", [("Content-Length", "100000")])
        return await _drip(attacker, client)


async def _hold_body(attacker: Attacker) -> str:
    """Send all but the last byte of a body that a resumable route keeps, every other one with a key, and wait."""
    async with attacker.connect() as client:
        key = [("Idempotency-Key", f"held-{attacker.rounds}")] if attacker.rounds % 2 else []
        await client.ask("/evil/kept/one", "POST", [("Content-Length", str(_HELD_BODY_BYTES)), *key])
        answered = asyncio.ensure_future(status(client))
        try:
            left = _HELD_BODY_BYTES - 1
            while left and not answered.done():
                await client.send(_PIECE[:left])
                left -= min(left, len(_PIECE))
                await asyncio.sleep(_PIECE_SECONDS)
            await asyncio.wait([answered], timeout=_HOLD_SECONDS)
            return answered.result() if answered.done() else "held"
        finally:
            answered.cancel()


async def _chunk_extensions(attacker: Attacker) -> str:
    """Send a body whose chunks have one byte and an extension of 4 KB each."""
    async with attacker.connect() as client:
        await client.ask("/evil/direct/ok", "POST", [("Transfer-Encoding", "chunked")])
        piece = b"1;a=" + b"e" * 4096 + b"\r\nx\r\n"
        for _ in range(20):
            await client.send(piece * 4)
        await client.send(b"0\r\n\r\n")
        return await status(client)


async def _reset(attacker: Attacker) -> str:
    async with attacker.connect() as client:
        await client.ask("/evil/direct/silent")
        client.reset()
        return "reset"


FLOODS = (
    Attack(0, "bursts of 50 pipelined requests", _pipeline, frozenset(("200",)), 2),
    Attack(0, "25 connections that say nothing, held for 8 s", _say_nothing, frozenset(("held",)), 1, 10),
    Attack(0, "heads that drip", _slow_head, frozenset(("408",)), 2, 40),
    Attack(0, "bodies that drip", _slow_body, frozenset(("408",)), 2, 20),
    Attack(5, "bodies of 16 MiB less a byte, held for 8 s", _hold_body, frozenset(("held", "408")), 1, 4),
    Attack(0, "chunk extensions of 4 KB", _chunk_extensions, frozenset(("200", "400")), 2),
    Attack(0, "requests that are reset at once", _reset, frozenset(("reset",)), 10),
)
