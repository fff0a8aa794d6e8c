"""Test that SDKs whose connection was killed retry without a second call of the model."""

import pytest

from tests.clients.line import Line
from tests.clients.provider import Provider
from tests.clients.sdks import CLIENTS, LOST, Talk, whole
from tests.kit.upstream import Pause

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.parametrize("client", CLIENTS)]


async def test_sdk_that_retries_with_its_idempotency_key_gets_the_answer_in_progress(client: str, provider: Provider, line: Line) -> None:
    pause = Pause()
    model = provider.model(pause)
    key = {"Idempotency-Key": f"{client} asks"}
    lost = Talk(client, line.url + "/resumable", model.name, key)
    await lost.hears(model.first_half)
    line.cut()
    with pytest.raises(LOST):
        await lost.outcome()
    again = Talk(client, line.url + "/resumable", model.name, key)
    await again.hears(model.first_half)
    pause.go()
    assert await again.outcome() == whole(client, model)
    late = Talk(client, line.url + "/resumable", model.name, key)
    assert await late.outcome() == whole(client, model)
    assert len(model.calls) == 1
