"""Ordinary clients of the stack: each measures how long it waits, and checks that it is not refused and loses and repeats no event.

All of them have the address 127.0.0.1.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

import aiohttp

from eventstream import Framer, Parser
from eventstream.client import EventSource
from tests.soak.siege.latencies import Latencies
from tests.soak.siege.llm import LLM_BODY, TICKS, TOKENS, llm_credential, llm_key
from tests.soak.subscriber import Sequence, offset

TOPICS = ("oak", "elm", "ash", "yew", "fir")
EVENTS_PER_SECOND = 4
"""Of each topic."""
STAYING, RETURNING = 40, 10
"""Subscribers that stay, and subscribers that leave and come back."""
DIRECT_STREAMS, LLM_CLIENTS, ASKING = 8, 4, 2
GUARD_SECONDS = 30

_Live = Callable[[aiohttp.ClientSession, int, int], Awaitable[None]]


class Topic:
    """What was published to one topic."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.acknowledged: list[tuple[str, str]] = []
        """ID and data of each event, in order."""


class Ordinary:
    """All ordinary clients. `latencies` may be replaced at any time by those of the next phase."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.latencies = Latencies()
        self.stopping = asyncio.Event()
        self.topics = [Topic(name) for name in TOPICS]
        self.staying: list[tuple[str, Sequence]] = []
        """URL and events of each subscriber that stays."""
        self.returning: list[tuple[str, Sequence]] = []
        self.returns = 0
        """How many times a subscriber or an LLM client came back."""
        self._sources: list[EventSource] = []
        self._url = url
        self._chance = chance

    async def live(self, http: aiohttp.ClientSession) -> None:
        """Go on until `stopping`, and until the subscribers that stay have every event.

        Raises an ExceptionGroup if a client was refused, or lost or repeated an event.
        """
        everything = f"{self._url}/topics/trees.%3E/events"
        for number in range(STAYING):
            one = f"{self._url}/topics/trees.{TOPICS[number % len(TOPICS)]}/events"
            self.staying.append((one if number % 2 else everything, Sequence(f"subscriber {number}")))
        self.returning += [(f"{everything}?from=start", Sequence(f"returning subscriber {number}")) for number in range(RETURNING)]
        kinds: list[tuple[int, _Live]] = [
            (DIRECT_STREAMS, self._read_ticks),
            (LLM_CLIENTS, self._ask_llm),
            (ASKING, self._ask),
            (RETURNING, self._come_and_go),
        ]
        async with asyncio.TaskGroup() as staying:
            for url, sequence in self.staying:
                staying.create_task(self._stay(url, sequence))
            async with asyncio.TaskGroup() as tasks:
                for topic in self.topics:
                    tasks.create_task(self._publish(http, topic))
                for count, live in kinds:
                    for number in range(count):
                        tasks.create_task(self._repeat(live, http, number))
            await self._until_staying_have_everything()
            for source in self._sources:
                await source.close()

    async def _until_staying_have_everything(self) -> None:
        newest = {topic.name: offset(topic.acknowledged[-1][0]) for topic in self.topics}

        newest["%3E"] = max(newest.values())

        def missing() -> list[str]:
            return [each.name for url, each in self.staying if offset(each.last_id) < newest[url.split(".")[-1].removesuffix("/events")]]

        until = time.monotonic() + GUARD_SECONDS
        while missing():
            assert time.monotonic() < until, f"the last events are missing after {GUARD_SECONDS} s: {missing()}"
            await asyncio.sleep(0.05)

    async def _repeat(self, live: _Live, http: aiohttp.ClientSession, number: int) -> None:
        times = 0
        while not self.stopping.is_set():
            times += 1
            await live(http, number, times)
            await self._pause(self._chance.uniform(0, 0.4))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _publish(self, http: aiohttp.ClientSession, topic: Topic) -> None:
        due = time.perf_counter() + self._chance.random() / EVENTS_PER_SECOND
        while not self.stopping.is_set():
            await self._pause(max(0.0, due - time.perf_counter()))
            due += 1 / EVENTS_PER_SECOND
            number = len(topic.acknowledged) + 1
            begun = time.perf_counter()
            data = f"{topic.name} {number} {begun}"
            headers = {"Idempotency-Key": f"{topic.name}-{number}"}
            async with http.post(f"/topics/trees.{topic.name}/events", json={"data": data}, headers=headers) as answer:
                assert answer.status == 201, (answer.status, await answer.text())
                topic.acknowledged.append(((await answer.json())["id"], data))
            self.latencies.add("publisher: request → acknowledged", time.perf_counter() - begun)

    async def _stay(self, url: str, sequence: Sequence) -> None:
        async with _source(url, sequence) as source:
            self._sources.append(source)
            async for event in source:
                now = time.perf_counter()
                sequence.take(event)
                self.latencies.add("subscriber: published → received", now - float(event.data.split()[2]))

    async def _come_and_go(self, _http: aiohttp.ClientSession, number: int, _times: int) -> None:
        url, sequence = self.returning[number]
        begun = time.perf_counter()
        async with _source(url, sequence) as source:
            first = True
            with contextlib.suppress(TimeoutError):  # it leaves, in the middle of whatever is being sent
                async with asyncio.timeout(self._chance.uniform(0.5, 5.0)):
                    async for event in source:
                        if first:
                            self.latencies.add("returning subscriber: request → first missed event", time.perf_counter() - begun)
                        first = False
                        sequence.take(event)
        self.returns += 1
        await self._pause(self._chance.uniform(1.0, 3.0))  # so that it has missed something

    async def _read_ticks(self, http: aiohttp.ClientSession, _number: int, _times: int) -> None:
        numbers: list[int] = []
        begun = time.perf_counter()
        async with http.get("/ticks") as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            self.latencies.add("direct stream: request → head", time.perf_counter() - begun)
            await self._read(answer, "tick", numbers, "direct stream: sent → received")
        assert numbers == list(range(1, TICKS + 1))

    async def _ask_llm(self, http: aiohttp.ClientSession, number: int, times: int) -> None:
        owner = llm_credential(number)
        headers = {"X-Api-Key": owner, "Idempotency-Key": llm_key(number, times)}
        leave_after = self._chance.randrange(1, TOKENS) if self._chance.random() < 0.4 else TOKENS + 1
        numbers: list[int] = []
        begun = time.perf_counter()
        async with http.post("/llm", data=LLM_BODY, headers=headers) as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            self.latencies.add("LLM client: request → head", time.perf_counter() - begun)
            path = answer.headers["Location"]
            last = await self._read(answer, owner, numbers, "LLM client: token sent → received", leave_after)
        if len(numbers) < TOKENS:
            await self._pause(self._chance.uniform(0.0, 1.0))
            by_path = self._chance.random() < 0.5
            again = {**headers, "Last-Event-ID": last}
            begun = time.perf_counter()
            async with http.get(path, headers=again) if by_path else http.post("/llm", data=LLM_BODY, headers=again) as answer:
                assert answer.status == 200, (answer.status, await answer.text())
                self.latencies.add("returning LLM client: request → head", time.perf_counter() - begun)
                await self._read(answer, owner, numbers)
            self.returns += 1
        assert numbers == list(range(1, TOKENS + 1)), f"{owner} {times}"

    async def _read(
        self, answer: aiohttp.ClientResponse, owner: str, numbers: list[int], kind: str = "", leave_after: int = TOKENS + 1
    ) -> str:
        """Read an answer until it ends or has brought `leave_after` events, note the number of each, and return the last event ID."""
        framer, parser = Framer(), Parser()
        async for piece in answer.content.iter_any():
            now = time.perf_counter()
            for event in parser.feed(framer.feed(piece)):
                whose, number, sent_at = event.data.split()
                assert whose == owner, f"{owner} got an event of {whose}"
                numbers.append(int(number))
                if kind:
                    self.latencies.add(kind, now - float(sent_at))
            if len(numbers) >= leave_after:
                break
        return parser.last_event_id

    async def _ask(self, http: aiohttp.ClientSession, _number: int, _times: int) -> None:
        begun = time.perf_counter()
        async with http.get("/now") as answer:
            assert answer.status == 200, (answer.status, await answer.text())
            await answer.read()
        self.latencies.add("plain request: request → answer", time.perf_counter() - begun)


def _source(url: str, sequence: Sequence) -> EventSource:
    """Open an event source that must not be refused or cut; by itself it would come back without a word."""

    def check(source: EventSource) -> None:
        assert source.last_loss is None, f"{sequence.name} {source.last_loss}: {source.last_error}"

    return EventSource(url, last_event_id=sequence.last_id, read_timeout_seconds=GUARD_SECONDS, on_change=check)
