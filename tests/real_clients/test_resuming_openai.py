"""OpenAI's libraries retrieve, follow and cancel responses of a server that can only stream them."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients.line import Line
from tests.clients.provider import Model, Provider
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import Disconnect, Pause, Silence
from tests.real_clients.resuming import Library, Programs, each
from tests.real_clients.running import Run

pytestmark = [pytest.mark.asyncio(loop_scope="session"), each("openai")]

BEFORE, AFTER = 4, 4
"""Events of a response before the first and after the last one of its text."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def responses(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    route = {"path": "/responses", "upstream": provider.url, "mode": "resumable", "heartbeat_seconds": 0.1}
    async with running([route | {"resume": {"preset": "openai-responses"}}], tmp_path_factory.mktemp("responses")) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def line(responses: Gateway) -> AsyncIterator[Line]:
    async with Line(responses.port) as line:
        yield line


def numbers(run: Run) -> list[int]:
    return [int(event.id) for event in run.events]


def count(model: Model) -> int:
    return BEFORE + len(model.tokens) + AFTER


async def cut_in_the_middle(library: Library, programs: Programs, line: Line, model: Model) -> int:
    """Create a response, cut it before its pause, and return its last sequence number."""
    created = await library.call(programs, f"{line.url}/responses", "create", model=model.name)
    await created.hears_text(model.first_half)
    line.cut()
    await created.error()
    return numbers(created)[-1]


async def whole(library: Library, programs: Programs, line: Line, model: Model) -> None:
    """Create a response and receive all of it."""
    created = await library.call(programs, f"{line.url}/responses", "create", model=model.name)
    await created.end()
    assert numbers(created) == list(range(count(model)))


async def test_response_is_retrieved_after_a_cut_while_it_runs(
    library: Library, programs: Programs, provider: Provider, line: Line
) -> None:
    pause = Pause()
    model = provider.model(pause)
    last = await cut_in_the_middle(library, programs, line, model)
    retrieved = await library.call(programs, f"{line.url}/responses", "retrieve", id=model.response_id, after=last - 1)
    await retrieved.hears(1)
    pause.go()
    await retrieved.end()
    assert numbers(retrieved) == list(range(last, count(model)))
    again = await library.call(programs, f"{line.url}/responses", "retrieve", id=model.response_id)
    await again.end()
    assert numbers(again) == list(range(count(model)))
    assert again.text == model.text
    assert len(model.calls) == 1


@pytest.mark.parametrize("filters", [False, True])
async def test_stream_helper_assembles_a_running_response(
    filters: bool, library: Library, programs: Programs, provider: Provider, line: Line
) -> None:
    pause = Pause()
    model = provider.model(pause)
    last = await cut_in_the_middle(library, programs, line, model)
    helper = await library.call(programs, f"{line.url}/responses", "helper", id=model.response_id, **({"after": last} if filters else {}))
    if not filters:
        await helper.hears_text(model.first_half)
    pause.go()
    assert await helper.end() == f"completed: {model.text}"
    assert numbers(helper) == list(range(last + 1 if filters else 0, count(model)))
    assert len(model.calls) == 1


async def test_nothing_is_left_behind_the_last_event(library: Library, programs: Programs, provider: Provider, line: Line) -> None:
    model = provider.model()
    await whole(library, programs, line, model)
    left = await library.call(programs, f"{line.url}/responses", "retrieve", id=model.response_id, after=count(model) - 1)
    await left.end()
    assert left.events == []


async def test_response_that_was_lost_is_not_retrieved_as_a_complete_one(
    library: Library, programs: Programs, provider: Provider, line: Line
) -> None:
    model = provider.model(Disconnect())
    created = await library.call(programs, f"{line.url}/responses", "create", model=model.name)
    await created.error()
    retrieved = await library.call(programs, f"{line.url}/responses", "retrieve", id=model.response_id, after=numbers(created)[-2])
    await retrieved.error()
    assert numbers(retrieved) == numbers(created)[-1:]


async def test_cancelled_response_ends_at_the_server_too(library: Library, programs: Programs, provider: Provider, line: Line) -> None:
    model = provider.model(Silence())
    await cut_in_the_middle(library, programs, line, model)
    cancelled = await library.call(programs, f"{line.url}/responses", "cancel", id=model.response_id)
    response = json.loads(await cancelled.end())
    assert (response["id"], response["status"], response["object"]) == (model.response_id, "cancelled", "response")
    await model.calls[0].left.wait()
    retrieved = await library.call(programs, f"{line.url}/responses", "retrieve", id=model.response_id)
    assert "is unknown" in await retrieved.error()


async def test_requests_for_the_server_reach_it(library: Library, programs: Programs, provider: Provider, line: Line) -> None:
    model = provider.model()
    await whole(library, programs, line, model)
    own, unseen = model.response_id, f"{model.response_id}-unseen"
    already = len(provider.refused)
    for does, id in (("object", own), ("retrieve", unseen), ("object", unseen), ("cancel", unseen)):
        call = await library.call(programs, f"{line.url}/responses", does, id=id)
        assert "is unknown" in await call.error()
    passed = provider.refused[already:]
    assert [line.partition("?")[0] for line in passed] == [
        f"GET /responses/v1/responses/{own}",
        f"GET /responses/v1/responses/{unseen}",
        f"GET /responses/v1/responses/{unseen}",
        f"POST /responses/v1/responses/{unseen}/cancel",
    ]


async def test_retry_of_a_request_that_was_cut_before_its_head_joins_it(
    library: Library, programs: Programs, provider: Provider, line: Line
) -> None:
    pause = Pause()
    model = provider.model(prelude=[pause])
    created = await library.call(programs, f"{line.url}/responses", "create", model=model.name)
    await pause.reached.wait()
    for retry in (1, 2):
        line.cut()
        await line.carries(b"x-stainless-retry-count: %d\r\n" % retry)
    pause.go()
    await created.end()
    assert numbers(created) == list(range(count(model)))
    assert len(model.calls) == 1
