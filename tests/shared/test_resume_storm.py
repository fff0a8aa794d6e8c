"""Many subscribers resume at once, far behind, while events are published."""

import asyncio

import pytest

from tests.shared.conftest import Stage, StartStage
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

SUBSCRIBERS = 1_000
LIVE = 100
BEHIND = 5_000
EVENTS_PER_SECOND = 20
GUARD_SECONDS = 240


class Storm:
    """Resumes subscribers and proves, byte for byte, that each gets all events after its last one, once."""

    def __init__(self, stage: Stage, topic: Topic) -> None:
        self._stage = stage
        self._topic = topic
        self._wire = bytearray()
        self._published = 0
        self._last = False
        self._lagging = 0
        self._caught_up = asyncio.Event()

    def publish(self) -> None:
        self._topic.publish()

    def _all(self) -> bytearray:
        log = self._topic.log
        self._wire += log.wire(self._published)
        self._published = len(log)
        return self._wire

    async def follow(self, last: int) -> int:
        """Resume after event `last`, and return the number of bytes until the last event of all."""
        self._lagging += 1
        lagging = True
        begin = at = sum(map(len, self._topic.log.blocks[:last]))
        async with Subscriber(self._stage.gateway.port, self._topic.path, last_event_id=str(last)) as subscriber:
            answer = (await subscriber.join()).answer
            while not (self._last and at == len(self._all())):
                await answer.receive(1, timeout=GUARD_SECONDS)
                assert answer.end is None, f"ended {answer.end} behind byte {at}"
                expected = self._all()[at : at + len(answer.body)]
                assert answer.body == expected, f"behind byte {at} came {bytes(answer.body[:200])!r}, not {bytes(expected[:200])!r}"
                at += len(answer.body)
                answer.body.clear()
                if lagging and at == len(self._wire):
                    lagging = False
                    self._lagging -= 1
                    if not self._lagging:
                        self._caught_up.set()
        return at - begin

    async def publish_until_all_have_caught_up(self) -> None:
        while not self._caught_up.is_set():
            self._topic.publish()
            await asyncio.sleep(1 / EVENTS_PER_SECOND)
        self._last = True  # before the call that wakes the waiting subscribers
        self._topic.publish()


async def test_thousand_subscribers_resume_five_thousand_events_behind_during_publishing(start_stage: StartStage) -> None:
    async with start_stage() as stage:
        topic = stage.topic("", retry=None)
        async with stage.join(topic) as witness:
            for _ in range(BEHIND // 100):
                topic.publish(100)
                await witness.until(lambda: topic.log.blocks[-1] in witness.received.blocks[-1:])
            storm = Storm(stage, topic)
            async with asyncio.timeout(GUARD_SECONDS), asyncio.TaskGroup() as group:
                live = [group.create_task(storm.follow(BEHIND)) for _ in range(LIVE)]
                behind = [group.create_task(storm.follow(1)) for _ in range(SUBSCRIBERS)]
                group.create_task(storm.publish_until_all_have_caught_up())
            assert {task.result() for task in behind} == {len(topic.log.wire(1))}
            assert {task.result() for task in live} == {len(topic.log.wire(BEHIND))}
        assert len(topic.log) > BEHIND + 1
        assert len(topic.requests) == 1
