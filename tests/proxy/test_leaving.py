"""A client that disconnects ends its upstream request at once. Closing the sending half counts as disconnecting."""

import asyncio

import pytest

from tests.kit.downstream import Downstream
from tests.kit.upstream import Pause, Script, Silence, chunk
from tests.proxy.concurrently import all_hold
from tests.proxy.conftest import Converse
from tests.proxy.streams import HEAD

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAYS = pytest.mark.parametrize("way", ["close", "reset", "half_close"])
SITUATIONS: dict[str, Script] = {
    "before the head": [Silence()],
    "after the head": [HEAD, Silence()],
    "between blocks": [HEAD, chunk(b"data: 1\n\n"), Silence()],
    "inside a block": [HEAD, chunk(b"data: 1\n\ndata: 2"), Silence()],
    "in a plain answer": [HEAD.replace(b"text/event-stream", b"text/plain"), chunk(b"part"), Silence()],
}


def leave(downstream: Downstream, way: str) -> None:
    {"close": downstream.close, "reset": downstream.reset, "half_close": downstream.half_close}[way]()


@WAYS
@pytest.mark.parametrize("situation", SITUATIONS)
async def test_client_that_disconnects_ends_its_upstream_request_at_once(converse: Converse, situation: str, way: str) -> None:
    async with converse(*SITUATIONS[situation]) as talk:
        await talk.scene.asked()
        if situation != "before the head":
            answer = await talk.answer()
            if b"data: 1" in b"".join(step for step in talk.scene.script if isinstance(step, bytes)):
                await answer.receive(9)
        leave(talk.downstream, way)
        await talk.scene.left()


@WAYS
async def test_client_that_disconnects_within_its_request_body_leaves_no_upstream_request(converse: Converse, way: str) -> None:
    headers = [("Content-Length", "1000000")]
    async with converse(Silence(), method="POST", headers=headers, read_body=False) as talk:
        await talk.downstream.send(b"x" * 1000)
        leave(talk.downstream, way)
        if talk.scene.requests:  # a proxy may wait for the whole body, and then the upstream gets no request
            await talk.scene.left()


async def test_disconnection_is_noticed_after_a_pipelined_request(converse: Converse) -> None:
    async with converse(HEAD, chunk(b"data: 1\n\n"), Silence()) as talk:
        await (await talk.answer()).receive(9)
        await talk.downstream.ask("/plain/next", headers=talk.scene.headers)
        talk.downstream.close()
        await talk.scene.left()


async def test_hundred_simultaneous_disconnections_are_all_noticed(converse: Converse) -> None:
    async def one() -> None:
        async with converse(HEAD, chunk(b"data: 1\n\n"), Silence()) as talk:
            await (await talk.answer()).receive(9)
            await everyone.wait()
        await talk.scene.left()

    everyone = asyncio.Barrier(100)
    await all_hold({f"client {number}": one() for number in range(100)})


async def test_client_that_disconnects_does_not_disturb_the_others(converse: Converse) -> None:
    pause = Pause()
    async with converse(HEAD, chunk(b"data: 1\n\n"), pause, chunk(b"data: 2\n\n"), b"0\r\n\r\n") as staying:
        answer = await staying.answer()
        for way in ["close", "reset", "half_close"] * 3:
            async with converse(HEAD, chunk(b"data: 1\n\n"), Silence()) as talk:
                await (await talk.answer()).receive(9)
                leave(talk.downstream, way)
                await talk.scene.left()
        pause.go()
        assert await answer.to_end() == b"data: 1\n\ndata: 2\n\n"
