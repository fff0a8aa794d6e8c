"""Streams that come back from the store: one load each, counted before it begins, and within the limits of memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.access.budget import Budget
from gateway.modes.resumable.kept_stream import KeptStream
from gateway.modes.resumable.loading import Loading
from gateway.modes.resumable.store import COMPLETE, EXPIRED, RUNNING, StoredStream, StoreError
from gateway.modes.resumable.storing import Storing
from gateway.policy.refusal import Refusal
from gateway.policy.routes import Route
from gateway.streams.sealed import SealedBlocks
from gateway.streams.subscriber import Subscriber
from gateway.streams.wheel import TimerWheel
from tests.gateway.scripted_transport import ScriptedTransport
from tests.gateway.stream_store_contract import block
from tests.gateway.test_kept_streams import ScriptedStore, head

BLOCKS = 10
SIZE = 100_000
"""What each stream takes of memory, more than is written at once."""
ROUTE = Route.model_validate({"path": "/", "upstream": "http://gone.invalid", "mode": "resumable"})


@dataclass
class Shelf:
    """A store, the streams in memory, and what brings them there."""

    limit: int
    limit_per_client: int
    store: ScriptedStore = field(default_factory=ScriptedStore)
    wheel: TimerWheel = field(default_factory=lambda: TimerWheel(0.05))
    streams: dict[str, KeptStream] = field(default_factory=dict)
    reported: list[StoreError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = Budget(self.limit, self.limit_per_client)
        self.loading = Loading(self.store, self.streams, self.memory, restore=self._restore, drop=self._drop, report=self.reported.append)

    def _restore(self, stored: StoredStream, blocks: Sequence[SealedBlocks], tail: bytes) -> KeptStream:
        stream = self.streams[stored.head.id] = KeptStream.restore(stored, blocks, tail, ROUTE, self.wheel, self.memory)
        stream.awaited = True
        return stream

    def _drop(self, stream: KeptStream) -> None:
        del self.streams[stream.head.id]
        stream.close()

    def put(self, id: str, owner: str, state: str = COMPLETE) -> str:
        """Put a stream into the store."""
        self.store.blocks[id] = block("x" * (SIZE // BLOCKS - len(block("")))) * BLOCKS
        self.store.streams[id] = StoredStream(head(id=id, owner=owner), state, "", 1.0, SIZE, BLOCKS, SIZE)
        return id

    async def find(self, id: str, *, leave: bool = True) -> KeptStream:
        found = await self.loading.find(id)
        assert isinstance(found, KeptStream), found
        if leave:
            found.viewer_left()
        return found

    def follow(self, stream: KeptStream) -> Subscriber:
        """Open a subscriber of a stream from its start, which accepts nothing."""
        transport = ScriptedTransport(0)
        transport.subscriber = subscriber = Subscriber(
            transport, self.wheel, chunked=False, takes_retry=False, unsent=Budget(2**40, 2**40), owner="owner"
        )
        stream.fan_out.join(subscriber, 0)
        return subscriber


@asynccontextmanager
async def shelf(limit: int = 10 * SIZE, limit_per_client: int = 10 * SIZE) -> AsyncIterator[Shelf]:
    async with asyncio.timeout(30):
        shelf = Shelf(limit, limit_per_client)
        yield shelf
        shelf.store.goes.set()
        await shelf.loading.close()


async def test_requests_for_one_stream_share_its_load() -> None:
    async with shelf() as there:
        id = there.put("s1", "a")
        found = await asyncio.gather(*(there.loading.find(id) for _ in range(10)))
        assert {*found} == {there.streams[id]}
        assert there.store.calls.count("load") == 1
        assert await there.loading.find(id) is found[0]
        assert there.store.calls.count("load") == 1


async def test_bytes_count_before_they_are_loaded_and_once_afterwards() -> None:
    async with shelf() as there:
        ids = [there.put(f"s{number}", "a") for number in range(3)]
        amounts: list[int] = []
        there.store.fails = lambda call: call == "load" and amounts.append(there.memory.amount) is not None
        await asyncio.gather(*(there.loading.find(id) for id in ids))
        assert amounts[0] == 3 * SIZE, "all are asked for in one turn of the event loop"
        assert there.memory.amount == there.memory.of("a") == 3 * SIZE


async def test_stream_that_is_looked_up_is_not_loaded() -> None:
    async with shelf() as there:
        there.put("s1", "a")
        found = await there.loading.look_up("s1")
        assert isinstance(found, StoredStream)
        assert (found.block_count, found.size) == (BLOCKS, SIZE)
        assert await there.loading.look_up("none") is None
        assert there.store.calls == ["look_up", "look_up"]


@pytest.mark.parametrize(("state", "says"), [(RUNNING, "while the store failed"), (EXPIRED, "no longer kept")])
async def test_stream_without_blocks_is_gone_with_its_reason(state: str, says: str) -> None:
    async with shelf() as there:
        found = await there.loading.find(there.put("s1", "a", state))
        assert isinstance(found, str)
        assert says in found
        assert there.memory.amount == 0


async def test_load_that_fails_counts_no_more_and_is_reported() -> None:
    async with shelf() as there:
        there.put("s1", "a")
        there.store.fails = lambda call: call == "load"
        with pytest.raises(StoreError):
            await there.loading.find("s1")
        assert there.memory.amount == 0
        assert len(there.reported) == 1
        there.store.fails = lambda _: False
        assert (await there.find("s1")).size == SIZE


async def test_client_that_leaves_does_not_cancel_the_load_for_others() -> None:
    async with shelf() as there:
        there.put("s1", "a")
        first, second = (asyncio.create_task(there.loading.find("s1")) for _ in range(2))
        while "load" not in there.store.calls:
            await asyncio.sleep(0)
        first.cancel()
        assert isinstance(await second, KeptStream)


async def test_streams_without_subscribers_leave_for_others_and_awaited_ones_do_not() -> None:
    async with shelf(limit=3 * SIZE) as there:
        for number in range(4):
            await there.find(there.put(f"s{number}", "a"))
        assert [*there.streams] == ["s1", "s2", "s3"]
        assert there.memory.amount == 3 * SIZE
        for number in range(4, 7):
            await there.find(there.put(f"s{number}", "a"), leave=False)
        found = await there.loading.find("s0")
        assert isinstance(found, Refusal)
        assert (found.status, found.reason) == (503, "overload")
        assert "the limit is 300000" in found.detail


async def test_client_at_its_own_limit_is_refused_and_others_are_served() -> None:
    async with shelf(limit=10 * SIZE, limit_per_client=2 * SIZE) as there:
        for number in range(2):
            await there.find(there.put(f"a{number}", "a"), leave=False)
        found = await there.loading.find(there.put("a2", "a"))
        assert isinstance(found, Refusal)
        assert (found.status, found.reason) == (429, "client-share")
        assert await there.find(there.put("b", "b"))
        there.streams["a0"].viewer_left()
        assert await there.find("a2")
        assert [*there.streams] == ["a1", "b", "a2"]


async def test_followers_of_a_client_that_holds_more_give_way_and_those_of_a_lighter_one_do_not() -> None:
    async with shelf(limit=4 * SIZE) as there:
        followers = [there.follow(await there.find(there.put(id, id[0]))) for id in ("a0", "a1", "a2", "b0")]
        await there.find(there.put("c0", "c"))
        assert [*there.streams] == ["a1", "a2", "b0", "c0"]
        assert [bool(follower.verdict) for follower in followers] == [True, False, False, False]
        assert isinstance(await there.loading.find(there.put("a3", "a")), KeptStream), "c0 is not followed"
        assert [*there.streams] == ["a1", "a2", "b0", "a3"]
        assert isinstance(await there.loading.find("a0"), Refusal)


async def test_stream_that_is_larger_than_the_limit_is_loaded_when_there_is_no_other() -> None:
    async with shelf(limit=SIZE // 2, limit_per_client=SIZE // 4) as there:
        assert await there.find(there.put("s1", "a"))
        assert await there.find(there.put("s2", "a"))
        assert [*there.streams] == ["s2"]


async def test_restored_stream_is_not_stored_again() -> None:
    async with shelf() as there:
        stream = await there.find(there.put("s1", "a"))
        there.store.calls.clear()
        await Storing(there.store).bring([stream])
        assert there.store.calls == []
