"""Kept streams and their store: facts that are only visible inside the process."""

import asyncio
import contextlib
import gc
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.access.budget import Budget
from gateway.http.upstream import open_session
from gateway.modes.resumable import kept_streams
from gateway.modes.resumable.kept_stream import KeptStream
from gateway.modes.resumable.kept_streams import KeptStreams
from gateway.modes.resumable.loading import LoadedBlocks
from gateway.modes.resumable.opening import Opening
from gateway.modes.resumable.store import COMPLETE, CUT, ORPHANED, RUNNING, TOO_LARGE, StoredStream, StoreError, StreamEvicted, StreamHead
from gateway.modes.resumable.storing import Storing
from gateway.policy.routes import Route
from gateway.streams.subscriber import BEHIND, Subscriber
from gateway.streams.wheel import TimerWheel
from tests.gateway.scripted_transport import ScriptedTransport
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Pause, ScriptedUpstream, Silence, Step, chunk
from tests.kit.waiting import GUARD_SECONDS, until

EVENT = b"data: x\n\n"
KILOBYTES = 1024
LARGE = b"data: %s\n\n" % (b"x" * 100 * KILOBYTES)


class ScriptedStore:
    """Keeps streams in a dict, and does what its test says: fails while `fails`, and nothing until `goes` is set."""

    def __init__(self) -> None:
        self.streams: dict[str, StoredStream] = {}
        self.blocks: dict[str, bytes] = {}
        self.fails: Callable[[str], bool] = lambda _: False
        self.goes = asyncio.Event()
        self.goes.set()
        self.calls: list[str] = []
        self.gives_up: set[str] = set()
        self.rounds = 0
        """Rounds of upkeep."""

    async def _do(self, call: str) -> None:
        self.calls.append(call)
        await self.goes.wait()
        if self.fails(call):
            raise StoreError(f"no {call} now")

    async def create(self, head: StreamHead) -> None:
        await self._do("create")
        if head.id in self.streams:
            raise StoreError("its id is not new")
        self.streams[head.id] = StoredStream(head, RUNNING, "", 0.0, 0, None, None)
        self.blocks[head.id] = b""

    async def append(self, id: str, blocks: bytes) -> None:
        await self._do("append")
        self._change(id, size=self._running(id).size + len(blocks))
        self.blocks[id] += blocks

    async def append_all(self, parts: Sequence[tuple[str, bytes]]) -> Sequence[Exception | None]:
        return await asyncio.gather(*(self.append(id, blocks) for id, blocks in parts), return_exceptions=True)  # type: ignore[return-value]

    async def finish(
        self, id: str, state: str, reason: str, keep_until: float, *, block_count: int | None = None, cost: int | None = None
    ) -> None:
        await self._do("finish")
        self._running(id)
        self._change(id, state=state, reason=reason, ended_at=time.time(), block_count=block_count, cost=cost)

    def _running(self, id: str) -> StoredStream:
        if id in self.gives_up:
            raise StreamEvicted("the stream gave way here")
        if id not in self.streams or self.streams[id].state != RUNNING:
            raise StoreError("the stream does not run here")
        return self.streams[id]

    def _change(self, id: str, **changes: object) -> None:
        self.streams[id] = replace(self.streams[id], **changes)  # type: ignore[arg-type]

    async def look_up(self, id: str) -> StoredStream | None:
        await self._do("look_up")
        return self.streams.get(id)

    async def load(self, id: str, take: Callable[[bytes], object]) -> StoredStream | None:
        await self._do("load")
        take(self.blocks[id])
        return self.streams.get(id)

    async def find_key(self, route: str, credentials: bytes, key: str) -> str | None:
        await self._do("find_key")
        heads = (stored.head for stored in reversed(self.streams.values()))
        return next((head.id for head in heads if key and (head.route, head.credentials, head.key) == (route, credentials, key)), None)

    async def find_event(self, head: StreamHead, event_id: str) -> str | None:
        await self._do("find_event")
        like = [stored.head.id for stored in reversed(self.streams.values()) if head.may_continue(stored.head)]
        return next((id for id in like if f"id: {event_id}\n".encode() in self.blocks[id]), None)

    async def expire(self, now: float) -> int:
        self.rounds += 1
        return 0

    async def close(self) -> None:
        """Has nothing to let go of."""


def head(key: str = "", id: str = "", owner: str = "") -> StreamHead:
    return StreamHead(id or secrets.token_hex(16), "/", "POST", "/", b"", b"body", key, (), time.time(), owner)


@dataclass
class House:
    """Kept streams, their store, and an upstream that plays one script per request."""

    store: ScriptedStore
    wheel: TimerWheel
    streams: KeptStreams
    session: aiohttp.ClientSession
    scripts: list[tuple[Step, ...]] = field(default_factory=list)
    url: str = ""
    route: Route = field(
        default_factory=lambda: Route.model_validate({"path": "/", "upstream": "http://gone.invalid", "mode": "resumable"})
    )

    def open(self, *script: Step, key: str = "", owner: str = "") -> Opening:
        """Asks the upstream for what it is to play."""
        self.scripts.append((EVENT_STREAM_HEAD, *script))
        asking = self.session.request
        return self.streams.open(head(key, owner=owner), self.route, lambda _: asking("POST", self.url), owner)  # type: ignore[arg-type, return-value]

    async def opened(self, *script: Step, owner: str = "") -> KeptStream:
        answer = await self.open(*script, owner=owner).answer
        assert isinstance(answer, KeptStream)
        return answer

    def follow(self, stream: KeptStream, takes: int | None = None) -> Subscriber:
        """Open a subscriber of a stream from its start, which accepts some bytes and then stalls."""
        transport = ScriptedTransport(takes)
        transport.subscriber = subscriber = Subscriber(
            transport, self.wheel, chunked=False, takes_retry=False, unsent=Budget(2**40, 2**40), owner="owner"
        )
        stream.fan_out.join(subscriber, 0)
        return subscriber


@contextlib.asynccontextmanager
async def house(max_bytes: int = 2**30, max_bytes_per_client: int = 2**30, max_streams: int = 100) -> AsyncIterator[House]:
    store, wheel = ScriptedStore(), TimerWheel(0.05)
    scripts: list[tuple[Step, ...]] = []
    async with (
        asyncio.timeout(GUARD_SECONDS),
        ScriptedUpstream(lambda _: scripts.pop(0)) as upstream,
        open_session(keepalive_seconds=1.0, max_header_bytes=8192) as session,
    ):
        route = Route.model_validate({"path": "/", "upstream": upstream.url, "mode": "resumable"})
        open_streams = Budget(max_streams, max_streams, unit="streams")
        limits = {"max_bytes": max_bytes, "max_bytes_per_client": max_bytes_per_client}
        streams = KeptStreams(store, wheel, **limits, open_streams=open_streams, routes=lambda _: route)
        async with streams.upkeep():
            yield House(store, wheel, streams, session, scripts, upstream.url, route)
            store.goes.set()


async def rounds_of_upkeep(kept: House, count: int = 3) -> None:
    """Return when the store has been asked `count` times more to expire streams, as it is once a round."""
    enough = kept.store.rounds + count
    await until(lambda: kept.store.rounds >= enough)


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a round of upkeep begin every 50 ms."""
    monkeypatch.setattr(kept_streams, "_UPKEEP_SECONDS", 0.05)


def blocks_of(store: ScriptedStore, stream: KeptStream) -> int:
    """How often the store has the event."""
    return store.blocks[stream.head.id].count(EVENT.rstrip())


async def test_blocks_that_the_store_refused_are_stored_later_once() -> None:
    async with house() as kept:
        pauses = [Pause(), Pause()]
        kept.store.fails = lambda call: call == "append"
        with capture_logs() as logs:
            stream = await kept.opened(chunk(EVENT), pauses[0], chunk(EVENT), pauses[1], chunk(EVENT) + LAST_CHUNK)
            await until(lambda: "append" in kept.store.calls)
            pauses[0].go()
            await until(lambda: stream.fan_out.history.end == 2)
            kept.store.fails = lambda call: call == "finish"
            pauses[1].go()
            await until(lambda: kept.store.calls.count("finish") > 1)
            assert not stream.end_stored
            kept.store.fails = lambda _: False
            await until(lambda: stream.end_stored and "works again" in logs[-1]["event"])
        assert kept.store.streams[stream.head.id].state == COMPLETE
        assert blocks_of(kept.store, stream) == 3
        events = [entry["event"] for entry in logs if "store" in entry["event"]]
        assert events == ["the store of streams fails; they are kept in memory only", "the store of streams works again"]


async def test_close_waits_for_pending_writes_and_stores_the_rest_once() -> None:
    async with house() as kept:
        stream = await kept.opened(chunk(EVENT), Silence())
        kept.store.goes.clear()
        await until(lambda: "append" in kept.store.calls)
        asyncio.get_running_loop().call_later(0.3, kept.store.goes.set)
        store = kept.store
        kept.store.goes = _Late(kept.store.goes)
    assert blocks_of(store, stream) == 1
    assert (store.streams[stream.head.id].state, store.streams[stream.head.id].reason) == (CUT, "the gateway stopped while it ran")


class _Late(asyncio.Event):
    """Close the streams while the store still waits."""

    def __init__(self, event: asyncio.Event) -> None:
        super().__init__()
        self._event = event

    def set(self) -> None:
        """Leaves it to the test."""

    async def wait(self) -> bool:  # type: ignore[override]
        return bool(await self._event.wait())


async def test_ended_stream_stays_in_memory_until_stored_and_costs_no_running_stream(brisk: None) -> None:
    async with house(max_bytes=250 * KILOBYTES) as kept:
        kept.store.goes.clear()
        ended = [await kept.opened(chunk(LARGE) + LAST_CHUNK) for _ in range(3)]
        runs = await kept.opened(chunk(LARGE), Silence())
        for stream in ended:
            stream.viewer_left()  # else they stay for a while for those who asked for them
        await until(lambda: all(stream.state == COMPLETE for stream in ended))
        await until(lambda: kept.streams.memory.amount > 400 * KILOBYTES)
        await rounds_of_upkeep(kept)
        assert [await kept.streams.find(stream.head.id) for stream in ended] == ended
        kept.store.goes.set()
        await until(lambda: kept.streams.memory.amount < 250 * KILOBYTES)
        assert runs.state == RUNNING
        for stream in ended:
            found = await kept.streams.find(stream.head.id)
            assert isinstance(found, KeptStream)
            assert found is not stream
            found.viewer_left()
            assert found.fan_out.history.end_bytes == stream.fan_out.history.end_bytes


async def test_streams_that_ended_give_way_when_the_store_fails_and_say_so() -> None:
    async with house(max_bytes=150 * KILOBYTES) as kept:
        kept.store.fails = lambda call: call in ("append", "finish")
        stream = await kept.opened(chunk(LARGE) + LAST_CHUNK)
        other = await kept.opened(chunk(LARGE), Silence())
        await until(lambda: kept.streams.memory.amount < 150 * KILOBYTES and stream.state == COMPLETE)
        assert other.state == RUNNING
        assert await kept.streams.find(stream.head.id) == "it ended while the store failed, and left memory before it worked again"


async def test_large_stream_is_stored_in_few_transactions() -> None:
    store = ScriptedStore()
    async with house() as kept:
        stream = await kept.opened(*[chunk(LARGE)] * 30 + [LAST_CHUNK])
        await until(lambda: stream.end_stored)
        stream.in_store, stream.end_stored, stream.stored_to = False, False, 0
        store.goes.clear()  # all that is submitted before it goes is one transaction
        storing = asyncio.create_task(Storing(store).bring([stream]))
        await until(lambda: "create" in store.calls)
        assert store.calls == ["create", *["append"] * 11], "1 MiB at once"
        store.goes.set()
        await storing


async def test_subscriber_of_a_stored_stream_is_disconnected_before_a_running_stream_is_ended() -> None:
    async with house(max_bytes=250 * KILOBYTES) as kept:
        ended = await kept.opened(chunk(LARGE), chunk(LARGE) + LAST_CHUNK)
        viewer = kept.follow(ended, takes=0)
        await until(lambda: ended.end_stored)
        runs = await kept.opened(chunk(LARGE), Silence())
        await until(lambda: viewer.verdict)
        assert (viewer.verdict, runs.state) == (BEHIND, RUNNING)


async def test_largest_that_run_end_until_the_rest_fits() -> None:
    async with house(max_bytes=350 * KILOBYTES) as kept:
        sizes = (1, 3, 2, 1)
        streams = [await kept.opened(*[chunk(LARGE)] * size, Silence()) for size in sizes]
        await until(lambda: streams[1].state == TOO_LARGE)
        await until(lambda: streams[1].end_stored)
        await until(lambda: sum(stream.fan_out.history.cost for stream in streams if stream.state == RUNNING) < 350 * KILOBYTES)
        assert [stream.state for stream in (streams[0], streams[3])] == [RUNNING, RUNNING]


async def test_no_client_s_stream_ends_for_the_sake_of_one_that_holds_more() -> None:
    async with house(max_bytes=550 * KILOBYTES) as kept:
        light = await kept.opened(*[chunk(LARGE)] * 2, Silence(), owner="light")
        heavy = [await kept.opened(chunk(LARGE), Silence(), owner="heavy") for _ in range(4)]
        await until(lambda: any(stream.state == TOO_LARGE for stream in heavy))
        await until(lambda: kept.streams.memory.amount < 550 * KILOBYTES)
        assert [stream.state for stream in (light, *heavy)].count(RUNNING) == 4
        assert light.state == RUNNING


async def test_client_s_own_streams_end_when_they_pass_its_share() -> None:
    async with house(max_bytes=2**30, max_bytes_per_client=250 * KILOBYTES) as kept:
        other = await kept.opened(*[chunk(LARGE)] * 2, Silence(), owner="other")
        own = [await kept.opened(*[chunk(LARGE)] * size, Silence(), owner="own") for size in (1, 2)]
        await until(lambda: own[1].state == TOO_LARGE)
        assert own[1].reason == f"the client's streams together exceeded {250 * KILOBYTES} bytes, and this was the largest"
        assert (own[0].state, other.state) == (RUNNING, RUNNING)


async def test_stream_without_subscribers_gives_way_to_the_next_of_its_client() -> None:
    async with house(max_streams=2) as kept:
        left, followed = await kept.opened(chunk(EVENT), Silence(), owner="own"), await kept.opened(chunk(EVENT), Silence(), owner="own")
        kept.follow(followed)
        for stream in (left, followed):
            stream.viewer_left()
        assert kept.streams.refusal("own") is None
        assert (left.state, followed.state) == (ORPHANED, RUNNING)
        opened = await kept.opened(chunk(EVENT), Silence(), owner="own")
        assert opened.awaited
        refusal = kept.streams.refusal("own")
        assert refusal is not None
        assert refusal.status == 429
        opened.stop()
        await until(lambda: kept.streams.refusal("own") is None)


async def test_stream_that_leaves_memory_needs_no_collector() -> None:
    async with house(max_bytes=50 * KILOBYTES) as kept:
        opened = await kept.opened(chunk(LARGE) + LAST_CHUNK)
        stream, fan_out = weakref.ref(opened), weakref.ref(opened.fan_out)
        del opened
        gc.disable()
        try:
            await until(lambda: stream() is None and fan_out() is None)
        finally:
            gc.enable()


async def test_same_key_at_once_opens_one_stream() -> None:
    async with house() as kept:
        pause = Pause()
        asked = [head("one"), head("one")]
        kept.scripts.append((pause, EVENT_STREAM_HEAD, chunk(EVENT) + LAST_CHUNK))
        openings = []
        for each in asked:
            assert await kept.streams.find_stored(each) is None
            found = kept.streams.find_opening(each)
            openings.append(found or kept.streams.open(each, kept.route, lambda _: kept.session.request("POST", kept.url), ""))  # type: ignore[arg-type, return-value]
        assert openings[0] is openings[1]
        pause.go()
        assert isinstance(await openings[0].answer, KeptStream)


async def test_key_of_an_upstream_that_fails_is_free_again() -> None:
    async with house() as kept:

        async def fail(_: Opening) -> aiohttp.ClientResponse:
            raise aiohttp.ClientConnectionError("refused")

        asked = head("one")
        opening = kept.streams.open(asked, kept.route, fail, "")
        with pytest.raises(aiohttp.ClientConnectionError):
            await opening.answer
        assert kept.streams.find_opening(asked) is None


async def test_restored_stream_has_the_same_cost_and_only_ids_of_the_upstream() -> None:
    store, wheel = ScriptedStore(), TimerWheel(1.0)
    async with house() as kept:
        stream = await kept.opened(b"".join(map(chunk, [EVENT, b"id: own\ndata: x\n\n", b": c\n\n", EVENT])) + LAST_CHUNK)
        await until(lambda: stream.end_stored)
        blocks = LoadedBlocks(stream.head.id)
        blocks.take(kept.store.blocks[stream.head.id])
        stored = kept.store.streams[stream.head.id]
        restored = KeptStream.restore(stored, blocks.parts, blocks.flush(), kept.route, wheel, kept.streams.memory)
        assert restored.fan_out.history.cost == stream.fan_out.history.cost
        assert (restored.find("own"), restored.find(f"{stream.head.id}-1")) == (2, None)
        assert restored.fan_out.history.end == stream.fan_out.history.end == 3
        await Storing(store).bring([restored])
        assert store.calls == []


async def test_stream_is_no_orphan_before_the_request_that_opened_it_follows_it() -> None:
    async with house() as kept:
        kept.route = kept.route.model_copy(update={"orphan_seconds": 0.0})
        opening = kept.open(Silence())
        stream = await opening.answer
        assert isinstance(stream, KeptStream)
        stream.stop_if_orphaned(time.monotonic())
        assert stream.state == RUNNING
        opening.leave()
        assert stream.state == ORPHANED


async def test_stream_whose_request_left_before_the_answer_is_an_orphan() -> None:
    async with house() as kept:
        kept.route = kept.route.model_copy(update={"orphan_seconds": 0.0})
        opening = kept.open(Silence(), key="left")
        opening.leave()
        stream = await opening.answer
        assert isinstance(stream, KeptStream)
        stream.stop_if_orphaned(time.monotonic())
        assert stream.state == ORPHANED


async def test_stream_that_the_store_gave_up_goes_on_in_memory_and_is_offered_no_more(brisk: None) -> None:
    async with house() as kept:
        gives_up = kept.store.gives_up
        pause = Pause()
        stream = await kept.opened(chunk(EVENT), pause, chunk(EVENT) + LAST_CHUNK)
        await until(lambda: "append" in kept.store.calls)
        gives_up.add(stream.head.id)
        pause.go()
        await until(lambda: stream.memory_only and stream.state == COMPLETE)
        other = await kept.opened(chunk(EVENT) + LAST_CHUNK)
        await until(lambda: other.end_stored)
        calls = len(kept.store.calls)
        await rounds_of_upkeep(kept)
        assert len(kept.store.calls) == calls
        assert await kept.streams.find(stream.head.id) is stream
        assert not kept.streams._storing.failed
