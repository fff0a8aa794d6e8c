"""An upstream, a gateway and subscribers, all of which are cut, slowed, killed and restarted, while events are published."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from tests.kit.downstream import FramingError
from tests.kit.routed_gateway import Gateway
from tests.shared.proof import Proof
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import DEATHS, Topic, Upstream

CALM_SECONDS = 30.0
"""The most seconds until every client has every event, when nothing goes wrong any more."""
STALLED_SECONDS = 60.0
"""The seconds after which a subscriber without a new event, while events are published, has been forgotten."""


class Client:
    """A subscriber of one topic that never gives up: it reads fast or slowly, disconnects anywhere, and resumes."""

    def __init__(
        self, name: str, gateway: Gateway, topic: Topic, rng: random.Random, *, proves: Callable[[], Proof], resumes: bool
    ) -> None:
        self.name = name
        self.proof = proves()
        self.connections = 0
        self.doing = "begins"
        self._gateway = gateway
        self._topic = topic
        self._rng = rng
        self._proves = proves
        self._resumes = resumes
        self._seen = asyncio.get_running_loop().time()
        self.calm = False
        """Whether it has stopped disconnecting and delaying, in order to finish."""

    def __repr__(self) -> str:
        return f"<Client {self.name} {self.doing} at={self.proof.at} of {len(self._topic.log)} connections={self.connections}>"

    async def run(self, done: Callable[["Client"], bool]) -> None:
        last_event_id = ""
        while not done(self):
            stalls = self._rng.random() < 0.3 and not self.calm
            async with Subscriber(
                self._gateway.port, self._topic.path, last_event_id=last_event_id, receive_buffer=4096 if stalls else None
            ) as subscriber:
                self.doing = f"asks after {last_event_id!r}"
                if await self._joins(subscriber):
                    self.doing = f"reads, asked after {last_event_id!r}"
                    self.connections += 1
                    await self._read(subscriber, done, stalls=stalls)
                if done(self):
                    return
                if self._resumes:
                    last_event_id = subscriber.received.last_event_id
                else:
                    self.proof = self._proves()
                subscriber.leave(reset=self._rng.random() < 0.3)
            self._complain()
            await asyncio.sleep(self._rng.uniform(0, 0.05))

    async def _joins(self, subscriber: Subscriber) -> bool:
        """Whether it got an event stream. Refusals are allowed while the gateway or the upstream is down."""
        try:
            status = await subscriber.refused_or_joined()
        except (ConnectionError, FramingError):
            return False
        assert status in (200, 502, 503, 504), f"{self.name}: answered {status}"
        return status == 200

    async def _read(self, subscriber: Subscriber, done: Callable[["Client"], bool], *, stalls: bool) -> None:
        rng = self._rng
        most = rng.choice([rng.randint(1, 3_000), rng.randint(1, 300_000), 10**12])
        taken = 0
        while not done(self) and subscriber.end is None and (taken < most or self.calm):
            if stalls and not self.calm:
                await asyncio.sleep(rng.uniform(0, 0.3))
            try:
                async with asyncio.timeout(2):
                    blocks = await subscriber.read()
            except TimeoutError:
                self._complain()
                continue
            for block in blocks:
                before = self.proof.received
                self.proof.take(block)
                if self.proof.received > before:
                    self._seen = asyncio.get_running_loop().time()
                taken += len(block)

    def _complain(self) -> None:
        silent = asyncio.get_running_loop().time() - self._seen
        assert silent < STALLED_SECONDS, f"{self} got nothing for {silent:.0f} s"


class Chaos:
    """Random faults for some time; then none, and every subscriber must finish."""

    def __init__(self, upstream: Upstream, gateway: Gateway, rng: random.Random) -> None:
        self.happened: Counter[str] = Counter()
        self._upstream = upstream
        self._gateway = gateway
        self._rng = rng
        self._clients: list[Client] = []
        self._topics: list[Topic] = []
        self._goals: dict[Topic, int] = {}

    def add(self, topic: Topic, count: int, *, proves: Callable[[str], Proof], resumes: bool = True) -> list[Client]:
        """Subscribe `count` clients to `topic`; without `resumes` each connection is proved by itself."""
        self._topics.append(self._upstream.add(topic))
        clients = []
        for number in range(1, count + 1):
            name = f"{topic.path} client {number}"
            rng = random.Random(self._rng.random())
            client = Client(name, self._gateway, topic, rng, proves=lambda name=name: proves(name), resumes=resumes)  # type: ignore[misc]
            clients.append(client)
        self._clients += clients
        return clients

    async def rage(self, seconds: float) -> None:
        """Run, and raise the first fault that a client finds."""
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(self._publish())
            running = [group.create_task(client.run(self._done)) for client in self._clients]
            await self._go_wrong(seconds)
            self._goals = {topic: len(topic.log) + 1 for topic in self._topics}
            for client in self._clients:
                client.calm = True
            _, late = await asyncio.wait(running, timeout=CALM_SECONDS)
            assert not late, f"{CALM_SECONDS:.0f} s after the last fault these have not finished: {self._late()}"
            publishing.cancel()

    def summary(self) -> str:
        """Return the counts of the run, in a line."""
        published = sum(len(topic.log) for topic in self._topics)
        connections = sum(client.connections for client in self._clients)
        received = sum(client.proof.received for client in self._clients)
        missed = sum(len(client.proof.missed) for client in self._clients)
        faults = ", ".join(f"{count} × {fault}" for fault, count in sorted(self.happened.items()))
        return (
            f"{published} events published, {received} received by {len(self._clients)} subscribers over {connections} connections, "
            f"{missed} named as missing; {faults}"
        )

    def _late(self) -> list[Client]:
        return [client for client in self._clients if not self._done(client)]

    def _done(self, client: Client) -> bool:
        goal = self._goals.get(client._topic)
        return goal is not None and client.proof.at >= goal

    async def _publish(self) -> None:
        rng = self._rng
        while True:
            topic = rng.choice(self._topics)
            topic.publish(rng.choice([1, 1, 1, rng.randint(2, 30)]))
            await asyncio.sleep(rng.uniform(0, 0.04))

    async def _go_wrong(self, seconds: float) -> None:
        async def repeatedly(fault: Callable[[], Coroutine[Any, Any, None]], least: float, most: float) -> None:
            while True:
                await asyncio.sleep(self._rng.uniform(least, most))
                await fault()

        faults = [
            asyncio.create_task(repeatedly(self._kill_streams, 0.05, 0.4)),
            asyncio.create_task(repeatedly(self._restart_upstream, 1, 3)),
            asyncio.create_task(repeatedly(self._fall_silent, 0.5, 2)),
        ]
        try:
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            while loop.time() < end:
                done, _ = await asyncio.wait(faults, timeout=min(self._rng.uniform(2, 4), end - loop.time()))
                for fault in done:
                    fault.result()
                await self._restart_gateway()
        finally:
            for fault in faults:
                fault.cancel()
            await asyncio.gather(*faults, return_exceptions=True)
            if not self._upstream.running:
                await self._upstream.start()
            for topic in self._topics:
                topic.speaking.set()

    async def _kill_streams(self) -> None:
        topic = self._rng.choice(self._topics)
        death = self._rng.choice(DEATHS)
        topic.kill(death, after_bytes=self._rng.choice([0, self._rng.randint(1, 2_000)]))
        self.happened[f"upstream {death}"] += 1

    async def _restart_upstream(self) -> None:
        async with self._upstream.away():
            await asyncio.sleep(self._rng.uniform(0, 0.4))
        self.happened["upstream restart"] += 1

    async def _fall_silent(self) -> None:
        topic = self._rng.choice(self._topics)
        topic.speaking.clear()
        await asyncio.sleep(self._rng.uniform(0, 0.3))
        topic.speaking.set()
        self.happened["upstream silence"] += 1

    async def _restart_gateway(self) -> None:
        if self._rng.random() < 0.5:
            await self._gateway.stop()
            self.happened["gateway restart"] += 1
        else:
            await asyncio.to_thread(self._gateway.process.kill)
            self.happened["gateway crash"] += 1
        await self._gateway.start()
