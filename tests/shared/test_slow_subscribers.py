"""A slow subscriber catches up from the history; one slower than the history is disconnected. No other waits for either."""

import asyncio
from functools import partial

import pytest

from tests.kit.downstream import End
from tests.shared.conftest import Stage, StartStage
from tests.shared.event_log import Style
from tests.shared.proof import Proof
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20
LARGE = Style(large=1.0)
"""Some 40 kB an event, so that the kernel's buffers are soon full."""
KERNEL_BYTES = 5 * MIB
"""More than kernels buffer for a connection whose reader stalls."""


async def publish_for(topic: Topic, reader: Subscriber, total: int) -> None:
    """Publish `total` bytes, as fast as `reader` reads them, and prove that it gets them all."""
    proof = Proof(topic.log, begin=len(topic.log))
    sent = 0
    async with asyncio.timeout(60):
        while sent < total:
            sent += sum(map(len, topic.publish(5)))
            while proof.at < len(topic.log):
                for block in await reader.read():
                    proof.take(block)


async def read_to_end(subscriber: Subscriber, proof: Proof) -> End:
    """Prove the blocks until the response has ended."""
    subscriber.downstream.widen()
    async with asyncio.timeout(60):
        while subscriber.end is None:
            for block in await subscriber.read():
                proof.take(block)
    return subscriber.end


async def test_subscriber_slower_than_the_history_is_disconnected_between_blocks_and_resumes(stage: Stage) -> None:
    topic = stage.topic("/small", style=LARGE)
    async with stage.join(topic) as fast, stage.join(topic, receive_buffer=4096) as stalled:
        behind = partial(stage.gateway.metric, "gateway_streams_ended_total", route="/small", verdict="behind")
        before, proof = await behind(), Proof(topic.log, begin=0)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(publish_for(topic, fast, 2 * KERNEL_BYTES))
            while await behind() == before:
                await asyncio.sleep(0.05)
            assert await read_to_end(stalled, proof) in (End.CUT_SHORT, End.RESET)  # the written data stays available for some seconds
        assert stalled.received.rest == b""
        assert proof.at < len(topic.log)
        assert len(stalled.received.retries) >= 1  # its own reconnection time, besides the upstream's
        assert stalled.received.retries[-1] >= 1000
        async with asyncio.timeout(60):
            while proof.at < len(topic.log):
                await stalled.join()
                while stalled.end is None and proof.at < len(topic.log):
                    for block in await stalled.read():
                        proof.take(block)
        assert stalled.received.gaps == []


async def test_slow_subscriber_within_the_history_catches_up_on_its_connection(start_stage: StartStage) -> None:
    async with start_stage({"history_max_bytes": 64 * MIB}) as stage:
        topic = stage.topic("", style=LARGE)
        async with stage.join(topic) as fast, stage.join(topic, receive_buffer=4096) as stalled:
            await publish_for(topic, fast, 2 * KERNEL_BYTES)
            stalled.downstream.widen()
            proof = Proof(topic.log, begin=0)
            async with asyncio.timeout(60):
                while proof.at < len(topic.log):
                    for block in await stalled.read():
                        proof.take(block)
            topic.publish()
            await stalled.until_number(len(topic.log))  # live again
            assert stalled.end is None


async def test_stalled_subscribers_delay_no_other(stage: Stage) -> None:
    topic = stage.topic("/small", style=LARGE)
    loop = asyncio.get_running_loop()
    async with stage.join(topic) as fast:
        begun = loop.time()
        await publish_for(topic, fast, KERNEL_BYTES)
        alone = loop.time() - begun
        stalled = [stage.subscriber(topic, receive_buffer=4096) for _ in range(20)]
        try:
            for subscriber in stalled:
                await subscriber.join()
            begun = loop.time()
            await publish_for(topic, fast, KERNEL_BYTES)
            # The gateway writes what kernels buffer for twenty-one instead of one; waiting for one of them would never end.
            assert loop.time() - begun < 21 * alone + 2
        finally:
            for subscriber in stalled:
                subscriber.leave()


async def test_stalled_subscribers_cost_no_memory(start_stage: StartStage) -> None:
    async with start_stage({"history_max_bytes": MIB}, plain=True) as stage:
        topic = stage.topic("", style=LARGE)
        async with stage.join(topic) as fast:
            await publish_for(topic, fast, KERNEL_BYTES)
            before = stage.gateway.memory()
            stalled = [stage.subscriber(topic, receive_buffer=4096) for _ in range(50)]
            try:
                for subscriber in stalled:
                    await subscriber.join()
                await publish_for(topic, fast, 2 * KERNEL_BYTES)
                grown = stage.gateway.memory() - before
                assert grown < 50 * 200_000, f"fifty stalled subscribers cost {grown} bytes"
            finally:
                for subscriber in stalled:
                    subscriber.leave()


async def test_upstream_is_slowed_while_every_subscriber_is_slow_but_reads(start_stage: StartStage) -> None:
    """The only subscriber reads slowly, and gets everything, though it is far more than the history keeps."""
    async with start_stage({"history_max_bytes": MIB}) as stage:
        topic = stage.topic("", style=LARGE)
        async with stage.join(topic) as slow:
            proof = Proof(topic.log, begin=0)
            topic.publish(400)
            async with asyncio.timeout(60):
                while proof.at < 400:
                    assert slow.end is None, f"closed after event {proof.at}"
                    await asyncio.sleep(0.01)  # slowly
                    for block in await slow.read():
                        proof.take(block)
        assert len(topic.requests) == 1


async def test_slow_subscriber_gets_all_of_a_stream_that_has_ended(start_stage: StartStage) -> None:
    async with start_stage({"history_max_bytes": 64 * MIB}) as stage:
        topic = stage.topic("", style=LARGE)
        async with stage.join(topic) as fast, stage.join(topic, receive_buffer=4096) as stalled:
            await publish_for(topic, fast, 2 * KERNEL_BYTES)
            topic.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
            topic.kill("complete")
            assert await fast.until_end() is End.COMPLETE
            proof = Proof(topic.log, begin=0)
            assert await read_to_end(stalled, proof) is End.COMPLETE
            assert proof.at == len(topic.log)
