"""The limit of bytes per second holds for all streams of a client together, and it still gets every event."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.access.admission import Admission
from gateway.access.rates import Rate
from gateway.access.throttle import Allowance, Throttle
from gateway.streams.relay import COMPLETE, LEFT, Relay
from gateway.streams.subscriber import Subscriber
from tests.gateway.scripted_transport import Audience, ScriptedTransport, append_all, blocks_of
from tests.kit.downstream import Answer, Downstream, End
from tests.kit.gateway import serving
from tests.kit.stage import Stage
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, chunk
from tests.kit.waiting import GUARD_SECONDS, settle, until

RATE = 100_000
BURST = RATE // 2


class Writer:
    """Notes what it is told to do."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def lost(self) -> None:
        self.told.append("lost")


def allowance(rate: int = RATE, client: str = "a") -> Allowance:
    found = Admission(1, 1, bytes_per_second=rate).allowance(client)
    assert found is not None
    return found


def throttled(allowance: Allowance, *, full: bool = False) -> tuple[Throttle, Writer, ScriptedTransport]:
    transport, writer = ScriptedTransport(), Writer()
    throttle = Throttle(transport, allowance, full=full)
    throttle.open(writer)
    return throttle, writer, transport


async def test_writer_beyond_the_rate_is_paused_until_it_is_paid_for() -> None:
    throttle, writer, transport = throttled(allowance())
    began = time.monotonic()
    throttle.write(b"x" * BURST)
    throttle.writelines((b"y", b"z" * 10_000))
    assert writer.told == ["pause"]
    assert transport.body == b"x" * BURST + b"y" + b"z" * 10_000  # blocks leave whole
    await until(lambda: writer.told == ["pause", "resume"])
    assert time.monotonic() - began >= 0.3


async def test_pauses_of_transport_and_allowance_are_one() -> None:
    bytes_allowed = allowance()
    throttle, writer, _ = throttled(bytes_allowed)
    throttle.pause()
    throttle.write(b"x" * (BURST + 1000))
    assert writer.told == ["pause"]
    throttle.resume()
    assert writer.told == ["pause"]  # it is still spent
    await until(lambda: writer.told == ["pause", "resume"])
    throttle.write(b"x" * BURST)
    throttle.pause()
    await bytes_allowed.wait()
    await until(lambda: repr(throttle) == "<Throttle full open>")
    assert writer.told == ["pause", "resume", "pause"]  # it is still full
    throttle.resume()
    assert writer.told == ["pause", "resume", "pause", "resume"]


async def test_one_that_begins_with_a_full_transport_or_a_spent_allowance_begins_with_a_pause() -> None:
    bytes_allowed = allowance()
    throttle, writer, _ = throttled(bytes_allowed, full=True)
    assert throttle.paused
    throttle.resume()
    assert (throttle.paused, writer.told) == (False, ["resume"])
    bytes_allowed.spend(RATE)
    late, told, _ = throttled(bytes_allowed)
    assert late.paused
    await until(lambda: told.told == ["resume"])


async def test_disconnect_is_reported_once_and_ends_the_wait() -> None:
    bytes_allowed = allowance()
    throttle, writer, _ = throttled(bytes_allowed)
    throttle.write(b"x" * RATE)
    throttle.lost()
    throttle.close()
    throttle.write(b"a last word")
    assert writer.told == ["pause", "lost"]
    assert "waiting=0" in repr(bytes_allowed)
    await bytes_allowed.wait()
    assert writer.told == ["pause", "lost"]


async def test_streams_of_one_client_take_turns() -> None:
    bytes_allowed = allowance(rate=1_000_000)
    sent: list[int] = []

    class Flood(Writer):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number
            self.throttle = Throttle(ScriptedTransport(), bytes_allowed, full=False)
            self.throttle.open(self)

        def resume(self) -> None:
            super().resume()
            while self.told[-1:] != ["pause"]:
                sent.append(self.number)
                self.throttle.write(b"x" * 100_000)

    floods = [Flood(number) for number in range(4)]
    for flood in floods:
        if not flood.throttle.paused:
            flood.resume()
    began = len(sent)
    await until(lambda: len(sent) >= began + 8)
    turns = [number for number, _ in itertools.groupby(sent[began:])]
    assert turns[:4] == [0, 1, 2, 3]
    for flood in floods:
        flood.throttle.close()


async def test_one_that_never_pauses_by_itself_does_not_keep_the_others_waiting() -> None:
    now = 1000.0
    bytes_allowed = Allowance(Rate(RATE, b"key", clock=lambda: now).account("a"))
    steady, told, _ = throttled(bytes_allowed)
    waiting, _, _ = throttled(bytes_allowed)
    waiting.write(b"x" * (BURST + 1000))
    now += 0.2
    steady.write(b"x")  # which it might, if it were alone
    assert told.told == ["pause"]
    steady.close()
    waiting.close()


async def test_upstream_of_a_relay_is_paused_and_resumed() -> None:
    audience = Audience()
    transport = ScriptedTransport()
    throttle = Throttle(transport, allowance(), full=False)
    relay = Relay(throttle, audience.wheel)
    throttle.open(relay)
    upstream = Upstream()
    relay.upstream = upstream  # type: ignore[assignment]
    relay.feed(b"x" * (BURST + 1))
    assert (relay.paused, upstream.told) == (True, ["pause"])
    await until(lambda: upstream.told == ["pause", "resume"])
    relay.end(COMPLETE)


class Upstream(Writer):
    def detach(self) -> None:
        """Has nothing to forget."""


async def test_subscriber_at_its_limit_catches_up_from_the_history_and_misses_nothing() -> None:
    audience = Audience()
    transport = ScriptedTransport()
    throttle = Throttle(transport, allowance(rate=1_000_000), full=False)
    slow = Subscriber(throttle, audience.wheel, chunked=False, takes_retry=False, unsent=audience.memory, owner="owner")
    throttle.open(slow)
    audience.fan_out.join(slow)
    _, fast = audience.join()
    sent = b""
    for first in range(0, 1200, 50):
        sent += append_all(audience.fan_out, blocks_of(50, 1000, first))
        await settle(5)
    assert fast.body == sent
    assert len(transport.body) < len(sent)
    assert transport.body == sent[: len(transport.body)]
    await until(lambda: slow.cohort is not None and transport.body == sent)
    audience.fan_out.append(b"live\n\n")
    await until(lambda: transport.body == sent + b"live\n\n")
    assert (slow.blocks_out, slow.bytes_out) == (1201, len(transport.body))
    slow.end(LEFT)
    throttle.close()


async def test_allowance_lives_while_it_is_used() -> None:
    admission = Admission(1, 1, bytes_per_second=RATE)
    first = admission.allowance("a")
    assert first is admission.allowance("a")
    assert first is not admission.allowance("b")
    assert first is not None
    first.spend(10 * RATE)
    del first
    assert "a" not in admission._allowances
    again = admission.allowance("a")
    assert again is not None
    assert again.spent  # what a client has had is not forgotten with its last stream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    modes: dict[str, dict[str, Any]] = {
        "/direct": {},
        "/shared": {"mode": "shared", "initial": "history", "share_by": ["x-scene"]},
        "/kept": {"mode": "resumable", "methods": ["GET"]},
    }
    routes = [{"path": path, "upstream": stage.url, "heartbeat_seconds": 0} | keys for path, keys in modes.items()]
    directory: Path = tmp_path_factory.mktemp("throttle")
    async with serving(routes, directory, max_bytes_per_second_per_client=RATE) as port:
        yield port


_SOURCES: Iterator[str] = (f"127.0.1.{number}" for number in itertools.count(1))


@asynccontextmanager
async def asking(port: int, stage: Stage, *targets: str) -> AsyncIterator[tuple[list[Answer], bytes]]:
    """Streams of a client of its own, and the events that each of them gets: what the client may have in 1.6 seconds."""
    source = next(_SOURCES)
    size = int(1.6 * RATE) // len(targets) // 1000
    blocks = [b"data: %0990d\n\n" % number for number in range(size)]
    async with AsyncExitStack() as stack:
        answers = []
        for target in targets:
            scene = stage.scene(EVENT_STREAM_HEAD, *map(chunk, blocks), LAST_CHUNK)
            downstream = await stack.enter_async_context(Downstream(port, source=source))
            await downstream.ask(target, headers=scene.headers)
            answers.append(await downstream.answer())
        yield answers, b"".join(blocks)


def events_of(body: bytes) -> bytes:
    """Without the ids of kept streams."""
    return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(b"id: "))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("targets", [["/direct"], ["/kept"], ["/direct", "/kept", "/direct"]], ids=" ".join)
async def test_streams_of_a_client_together_keep_to_its_limit_and_end_complete(port: int, stage: Stage, targets: list[str]) -> None:
    began = time.monotonic()
    async with asking(port, stage, *targets) as (answers, events):
        bodies = await asyncio.gather(*(answer.to_end(timeout=GUARD_SECONDS) for answer in answers))
        seconds = time.monotonic() - began
        assert [events_of(body) == events for body in bodies] == [True] * len(targets)
        assert {answer.end for answer in answers} == {End.COMPLETE}
        assert seconds > 0.4  # 1.6 s, without half a second's worth at once and some 64 KiB that leave with the last write


@pytest.mark.asyncio(loop_scope="module")
async def test_subscribers_of_a_shared_stream_are_held_to_limits_of_their_own(port: int, stage: Stage) -> None:
    """The upstream is a producer that goes on: a slow client gets the rest from the history."""
    blocks = [b"id: %d\ndata: %0990d\n\n" % (number, number) for number in range(160)]
    scene = stage.scene(EVENT_STREAM_HEAD, *map(chunk, blocks))
    sources = [next(_SOURCES), next(_SOURCES)]
    async with Downstream(port, source=sources[0]) as one, Downstream(port, source=sources[1]) as other:
        began = time.monotonic()
        for downstream in (one, other):
            await downstream.ask("/shared", headers=[*scene.headers, ("X-Scene", scene.headers[0][1])])
        bodies = [await (await each.answer()).receive(len(b"".join(blocks)), timeout=GUARD_SECONDS) for each in (one, other)]
        seconds = time.monotonic() - began
    assert bodies == [b"".join(blocks)] * 2
    assert seconds > 0.4


@pytest.mark.asyncio(loop_scope="module")
async def test_small_answers_wait_too(port: int, stage: Stage) -> None:
    scene = stage.scene(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n" + b"x" * 30_000)
    began = time.monotonic()
    async with Downstream(port, source=next(_SOURCES)) as downstream:
        for _ in range(5):
            await downstream.ask("/direct", headers=scene.headers)
            assert await (await downstream.answer()).to_end() == b"x" * 30_000
    assert time.monotonic() - began > 0.5
