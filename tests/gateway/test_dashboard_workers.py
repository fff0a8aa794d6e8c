"""The dashboard of a gateway with workers: all their streams in one picture, and a tail of each."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.kit.dashboard import Admin, Looker
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.workers import EVENT, Crew, crew, subscribed


@asynccontextmanager
async def looking(crew: Crew) -> AsyncIterator[tuple[Admin, Looker]]:
    async with aiohttp.ClientSession() as session:
        admin = Admin(crew.gateway.admin, crew.port, session)
        async with admin.look() as looker:
            yield admin, looker


def of_workers(snapshot: dict[str, Any]) -> set[int]:
    return {stream["worker"] for stream in snapshot["streams"]}


async def test_streams_of_all_workers_are_shown_and_can_be_tailed_and_a_lost_worker_is_marked() -> None:
    more = Pause()

    def script(asked: Asked) -> Script:
        return [EVENT_STREAM_HEAD, chunk(EVENT), more, chunk(b"data: 2\n"), chunk(b"\n"), Silence()]

    async with (
        ScriptedUpstream(script) as upstream,
        crew(upstream) as workers,
        subscribed(workers.port, 20),
        looking(workers) as (admin, looker),
    ):
        snapshot = await looker.snapshot(lambda snapshot: len(snapshot["streams"]) == 20)
        assert of_workers(snapshot) == {0, 1}
        assert (snapshot["subscribers"], snapshot["requests"], snapshot["state"]) == (20, 20, "ready")
        assert snapshot["workers"] == [{"number": 0, "state": "ready"}, {"number": 1, "state": "ready"}]
        assert [(route["path"], route["streams"]) for route in snapshot["routes"]] == [("/", 20)]
        keys = {stream["worker"]: stream["key"] for stream in snapshot["streams"]}
        async with admin.tail(keys[0]) as first, admin.tail(keys[1]) as second:
            for tail in (first, second):
                await tail.event("history")
            more.go()
            for tail in (first, second):
                blocks: list[dict[str, Any]] = []
                while not blocks:
                    _, gathered = await tail.event("chunks")
                    blocks = [block for record in gathered["chunks"] for block in record["blocks"]]
                assert "".join(blocks[0]["parts"]) == "data: 2\n\n"
        assert (await admin.refusal("/dashboard/streams/7-1/tail"))[0] == 404
        assert (await admin.refusal("/dashboard/streams/0-999/tail"))[0] == 404
        workers.kill(1)
        snapshot = await looker.snapshot(lambda snapshot: any(mark["kind"] == "worker" for mark in snapshot["marks"]))
        assert "worker 1 ended: killed by SIGKILL" in json.dumps(snapshot["marks"])
        snapshot = await looker.snapshot(lambda snapshot: snapshot["state"] == "ready" and len(snapshot["streams"]) < 20)
        assert of_workers(snapshot) == {0}
