"""A worker dies: other workers are not affected, no waiting connection is lost, and it is replaced."""

import asyncio
import os
import re
import signal
from pathlib import Path

from gateway.server.workers.watchdog import HEARTBEATS, Watchdog
from tests.kit.downstream import Answer, Downstream, End, connected
from tests.kit.gateway_process import START_SECONDS
from tests.kit.upstream import EVENT_STREAM_HEAD, Act, Asked, Script, ScriptedUpstream, chunk
from tests.kit.waiting import GUARD_SECONDS
from tests.kit.workers import Crew, children_of, crew, default_script, ended, starting, subscribed

NUMBER = re.compile(rb"data: (\d+)\n\n")
RETRY = re.compile(rb"retry: ?(\d+)\n")


async def count_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send numbered events until the peer disconnects."""
    number = 1
    while not writer.is_closing():
        writer.write(chunk(b"data: %d\n\n" % number))
        await writer.drain()
        await asyncio.sleep(0.005)
        number += 1


def counting_script(asked: Asked) -> Script:
    return [EVENT_STREAM_HEAD, Act(count_up)] if asked.target.startswith("/stream") else default_script(asked)


def is_unbroken(body: bytes) -> bool:
    numbers = [int(number) for number in NUMBER.findall(body)]
    return numbers == [*range(1, len(numbers) + 1)] and NUMBER.sub(b"", body) == b""


async def test_killed_worker_takes_only_its_own_streams_and_is_replaced_while_others_serve() -> None:
    async with ScriptedUpstream(counting_script) as upstream, crew(upstream) as workers, subscribed(workers.port, 30) as answers:
        others = int(await workers.meter_of(1, "gateway_open_requests"))
        assert 0 < others < 30
        killed = workers.kill(0)
        await until_cut(answers, 30 - others)
        await ask_one_after_another(workers, 40)
        cut = [answer for answer in answers if answer.end]
        going_on = [answer for answer in answers if not answer.end]
        assert len(going_on) == others
        sizes = [len(answer.body) for answer in going_on]
        for answer, size in zip(going_on, sizes, strict=True):
            await answer.receive(size + 1000)
        assert all(is_unbroken(bytes(answer.body)) for answer in going_on)
        assert {answer.end for answer in cut} <= {End.CUT_SHORT, End.RESET}
        line = await workers.gateway.log_line("worker ended", START_SECONDS)
        assert (line["level"], line["worker"], line["reason"]) == ("warning", 0, "killed by SIGKILL")
        await workers.until_ready()
        assert workers.pids()[0] != killed
        async with subscribed(workers.port, 30):
            assert await workers.meter_of(0, "gateway_open_requests") > 0, "the new worker gets nothing"
            assert await workers.meter("gateway_open_requests") == 30 + others
        assert await workers.meter("gateway_worker_restarts_total") == 1
        workers.gateway.terminate()
        assert await workers.gateway.exit_status() == 0


async def until_cut(answers: list[Answer], count: int) -> None:
    """Read all until this number have ended."""
    async with asyncio.timeout(GUARD_SECONDS):
        while sum(answer.end is not None for answer in answers) < count:
            for answer in answers:
                if not answer.end:
                    await answer.receive(len(answer.body) + 1)


async def ask_one_after_another(workers: Crew, count: int) -> None:
    """Send each on a separate connection, so that some would reach a worker that is away. None may wait for its successor."""
    async with asyncio.timeout(GUARD_SECONDS):
        for _ in range(count):
            async with Downstream(workers.port) as downstream:
                await downstream.ask("/short")
                assert (await downstream.answer()).head.status == 200


async def test_worker_that_is_stuck_is_replaced_and_connections_that_wait_for_it_are_served_by_another() -> None:
    async with (
        ScriptedUpstream(counting_script) as upstream,
        crew(upstream, WORKER_SILENCE_SECONDS="3") as workers,
        subscribed(workers.port, 20) as answers,
    ):
        others = int(await workers.meter_of(1, "gateway_open_requests"))
        stuck = workers.kill(0, by=signal.SIGSTOP)
        async with connected(workers.port, 40) as downstreams:
            for downstream in downstreams:
                await downstream.ask("/short")
            assert await workers.readiness() == (503, {"status": "not ready", "reason": "worker 0 does not answer"})
            line = await workers.gateway.log_line("worker killed, its event loop is stuck", START_SECONDS)
            assert (line["level"], line["worker"], line["silent_seconds"]) == ("error", 0, 3)
            for downstream in downstreams:
                assert (await downstream.answer()).head.status == 200
        await until_cut(answers, 20 - others)
        assert all(is_unbroken(bytes(answer.body)) for answer in answers if not answer.end)
        await workers.until_ready()
        assert workers.pids()[0] != stuck
        assert await workers.meter("gateway_worker_restarts_total") == 1, "another worker was killed, too"


def test_worker_is_stuck_when_no_beat_has_come_while_several_were_due() -> None:
    """However long that took: on a machine that was suspended or is overloaded the parent is late, too."""
    watchdog = Watchdog()
    for _ in range(3):
        assert not any(watchdog.expired() for _ in range(HEARTBEATS))
        watchdog.reset()
    assert not any(watchdog.expired() for _ in range(HEARTBEATS))
    assert watchdog.expired()


async def test_counters_never_fall_when_a_worker_is_replaced_and_gauges_do() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream) as workers:
        await ask_one_after_another(workers, 40)
        async with subscribed(workers.port, 20):
            assert await workers.meter("gateway_open_requests") == 20
            others = await workers.meter_of(1, "gateway_open_requests")
            workers.kill(0)
            seen = [40.0]
            while await workers.meter("gateway_workers_ready") == 2:
                seen.append(await workers.meter("gateway_requests_total"))
            while await workers.meter("gateway_workers_ready") < 2:
                seen.append(await workers.meter("gateway_requests_total"))
                assert await workers.meter("gateway_open_requests") == others
            seen.append(await workers.meter("gateway_requests_total"))
    assert {*seen} == {40.0}


async def test_requests_of_a_worker_that_died_count_no_longer_towards_limits() -> None:
    async with ScriptedUpstream(default_script) as upstream, crew(upstream, MAX_STREAMS="20") as workers, subscribed(workers.port, 20):
        others = int(await workers.meter_of(1, "gateway_open_requests"))
        workers.kill(0)
        await workers.gateway.log_line("worker ended", START_SECONDS)
        async with subscribed(workers.port, 20 - others), Downstream(workers.port) as downstream:
            await downstream.ask("/stream")
            assert (await downstream.answer()).head.status == 503


async def test_sigterm_to_one_worker_drains_and_replaces_just_that_one() -> None:
    async with ScriptedUpstream(counting_script) as upstream, crew(upstream) as workers, subscribed(workers.port, 20) as answers:
        own = int(await workers.meter_of(0, "gateway_open_requests"))
        left = workers.kill(0, by=signal.SIGTERM)
        await ask_one_after_another(workers, 20)
        await until_cut(answers, own)
        for answer in answers:
            assert bool(answer.end) == bool(RETRY.search(bytes(answer.body)))
            assert is_unbroken(RETRY.sub(b"", bytes(answer.body)))
        line = await workers.gateway.log_line("worker ended", START_SECONDS)
        assert (line["worker"], line["reason"]) == (0, "exit status 0")
        assert await workers.meter("gateway_streams_ended_total", verdict="drained") == own, "what it counted last is lost"
        await workers.until_ready()
        assert workers.pids()[0] != left


async def test_worker_that_dies_again_and_again_is_started_after_growing_pauses() -> None:
    async with crew() as workers:
        pauses = []
        for _ in range(3):
            await workers.until_ready()
            workers.kill(1)
            pauses.append((await workers.gateway.log_line("worker ended", START_SECONDS))["starts_again_in_seconds"])
        workers.gateway.terminate()  # during the pause
        assert await workers.gateway.exit_status() == 0
    assert pauses == [0.5, 1.0, 2.0]


async def test_worker_that_dies_before_it_ever_served_ends_the_start(tmp_path: Path) -> None:
    with starting(tmp_path) as parent:
        pids = await children_of(parent.pid, 2)
        os.kill(pids[0], signal.SIGKILL)
        out, err = await asyncio.to_thread(parent.communicate)
    assert (parent.returncode, out) == (1, "")
    assert re.fullmatch(r"gateway: worker [01] failed to start: killed by SIGKILL\n", err), err
    assert ended(pids)
    assert [*tmp_path.iterdir()] == []
