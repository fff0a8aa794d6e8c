"""Wherever and however often a client is cut, and however it resumes, it reassembles the upstream's stream.

It runs for five seconds, or for `SOAK_SECONDS`; `SOAK_SEED` repeats the choices of an earlier run.
"""

import asyncio
import os
import random
import time
from collections import Counter

import pytest

from eventstream import Framer, Parser, split_blocks
from tests.kit.downstream import End
from tests.kit.stage import Scene
from tests.kit.upstream import Act, chunk
from tests.resumable.answers import END, HEAD, stream_of, unstamped
from tests.resumable.conftest import Play

SECONDS = float(os.environ.get("SOAK_SECONDS", "5"))
SEED = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(2**32)))
CLIENTS = 8
LINE_ENDS = {"LF": [b"\n"], "CRLF": [b"\r\n"], "CR": [b"\r"], "mixed": [b"\n", b"\r\n", b"\r"]}

pytestmark = [pytest.mark.soak, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(SECONDS * 2 + 120)]


def write_events(rng: random.Random, ends: list[bytes], ids: float, *, plain: bool) -> bytes:
    """Return a stream in which the share `ids` of the events has IDs of its own. Unless it is `plain`, everything without a meaning stands
    between them."""

    def block(lines: list[bytes], blank_lines: int = 1) -> bytes:
        written = b"".join(line + rng.choice(ends) for line in lines)
        for _ in range(blank_lines):
            written += rng.choice([end for end in ends if not (written.endswith(b"\r") and end == b"\n")])  # which would be one line end
        return written

    blocks = []
    for number in range(rng.randint(1, 50)):
        lines = [b"data: %d %b" % (number, b"\xe4\xb8\x83" * rng.choice((0, 1, 5, 300)))]
        lines += rng.choice(([], [], [b"event: e"], [b"data"], [b": c"], [b"database: no"], [b"data: id: 5"], [b"id: \0"]))
        lines += [b"id: own-%d" % number] if rng.random() < ids else []
        rng.shuffle(lines)
        if not plain and rng.random() < 0.3:
            blocks.append(block(rng.choice(([b": ping"], [b": a", b": b"], [b"retry: 10"])), rng.choice((1, 3))))
        blocks.append(block(lines, 1 if plain else rng.choice((1, 1, 3))))
    return b"".join(blocks)


def send(stream: bytes, rng: random.Random) -> Act:
    """Send it in HTTP chunks and writes that end anywhere, sometimes slowly."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire, at = bytearray(HEAD), 0
        while at < len(stream):
            size = rng.choice((1, 2, 7, 60, 5000))
            wire += chunk(stream[at : at + size])
            at += size
        wire += END
        while wire:
            size = rng.choice((1, 30, 1000, 20_000))
            writer.write(bytes(wire[:size]))
            del wire[:size]
            await writer.drain()
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.01)

    return Act(play)


class Client:
    """Follows one stream over any number of connections. Like any client it counts only whole blocks, and resumes after its last event ID;
    so it drops the blocks after that ID, which are sent again."""

    def __init__(self, play: Play, scene: Scene, rng: random.Random, name: str) -> None:
        self._play = play
        self._scene = scene
        self._rng = rng
        self._name = name
        self._stream = ""
        self._last_event_id = ""
        self._blocks: list[bytes] = []
        self.ways: Counter[str] = Counter()

    async def follow(self) -> bytes:
        """Return the reassembled stream, when it is complete."""
        while not await self._connect():
            pass
        return b"".join(self._blocks)

    async def _connect(self) -> bool:
        """Read until the connection is cut after some bytes. Return whether that was the end of the stream."""
        rng = self._rng
        ways = ["key"] + (["stream", "query"] if self._stream else []) + (["same request"] if self._last_event_id else [])
        way = rng.choice(ways)
        self.ways[way] += 1
        headers = [("Authorization", f"Bearer {self._name}")]
        if self._last_event_id and way != "query":
            headers.append(("Last-Event-ID", self._last_event_id))
        if way in ("stream", "query"):
            query = f"?last_event_id={self._last_event_id}" if way == "query" else ""
            request = self._play.ask(f"/streams/{self._stream}{query}", method="GET", headers=headers, body=b"")
        else:
            key = [("Idempotency-Key", self._name)] if way == "key" else []
            if not self._stream and rng.random() < 0.2:
                async with self._play.ask_without_answer("/ask", self._scene, headers=[*headers, *key]):
                    return False
            request = self._play.ask("/ask", self._scene, headers=[*headers, *key])
        async with request as answer:
            if answer.head.status == 204:
                return True
            assert answer.head.status == 200, (way, await answer.to_end())
            self._stream = stream_of(answer)
            most = rng.choice((0, 1, 100, 1000, 10_000, 2**30))
            cut = rng.randint(0, most)
            body = (await answer.receive(cut))[:cut]
            complete = answer.end is End.COMPLETE and len(body) == len(answer.body)
            if not complete and rng.random() < 0.5:
                answer.downstream.reset()
        self._take(body, complete=complete)
        return complete

    def _take(self, body: bytes, *, complete: bool) -> None:
        parser, known = Parser(self._last_event_id), len(self._blocks)
        for block in split_blocks(Framer().feed(body)):
            self._blocks.append(block)
            parser.feed(block)
            if parser.last_event_id != self._last_event_id:
                self._last_event_id, known = parser.last_event_id, len(self._blocks)
        if not complete:
            del self._blocks[known:]


def events_of(stream: bytes) -> list[tuple[str, str]]:
    return [(event.type, event.data) for event in Parser().feed(stream)]


def lines_of(stream: bytes, *, plain: bool) -> list[bytes]:
    """Return its content line by line; unless it is `plain`, without blank lines, and without the comments at the end."""
    lines = [line for line in stream.splitlines() if line or plain]
    while not plain and lines[-1].startswith(b":"):
        lines.pop()
    return lines


async def test_client_that_is_cut_anywhere_reassembles_the_stream(play: Play) -> None:
    print(f"SOAK_SEED={SEED}")  # noqa: T201  # pytest shows it when the test fails
    rng = random.Random(SEED)
    ways: Counter[str] = Counter()
    until = time.monotonic() + SECONDS

    async def check(number: int) -> None:
        plain = rng.random() < 0.5
        ends = rng.choice(tuple(LINE_ENDS))
        sent = write_events(rng, LINE_ENDS[ends], rng.choice((0, 0.5, 1)), plain=plain)
        scene = play.stage.scene(send(sent, random.Random(rng.random())))
        clients = [Client(play, scene, random.Random(rng.random()), f"{SEED}-{number}") for _ in range(rng.choice((1, 1, 3)))]
        for client, got in zip(clients, await asyncio.gather(*(client.follow() for client in clients)), strict=True):
            assert events_of(got) == events_of(sent)
            assert lines_of(unstamped(got), plain=plain) == lines_of(sent, plain=plain)
            assert unstamped(got) == sent or not plain or ends != "LF"
            ways.update(client.ways)
        assert len(scene.requests) == 1

    number = 0
    while number < CLIENTS or time.monotonic() < until:
        await asyncio.gather(*(check(number + more) for more in range(CLIENTS)))
        number += CLIENTS
    assert set(ways) == {"key", "stream", "query", "same request"}
