"""Test that no log, error or metric contains secrets, whatever happens to the requests that carry them."""

import asyncio

import httpx
import pytest

from tests.auth.conftest import FILE_KEY, NEWS_KEY, SHOP_KEY, World
from tests.auth.signing import OTHER_SECRET, SECRET, bearer, hs_token
from tests.kit.downstream import Downstream

pytestmark = pytest.mark.asyncio(loop_scope="session")


def secret_parts(text: str) -> list[str]:
    """Return the strings that must not be found: the token and its signature."""
    return [text, text.rpartition(".")[2]]


async def test_planted_secrets_appear_nowhere(world: World) -> None:
    good = hs_token(jti="planted")
    tokens = [good, hs_token(OTHER_SECRET, jti="planted"), hs_token(exp=1, jti="planted"), hs_token(events={}, jti="planted")]
    replies = []
    for text in tokens:
        for target in ("/token/planted", "/shared/planted", "/kept-get/short-planted", "/token/%zz", "/token/../x", "/streams/none"):
            cookie = [("Cookie", f"session={text}"), ("Sec-Fetch-Site", "cross-site")]
            replies.append(await world.ask(target, bearer(text), *cookie))
            replies.append(await world.ask(target, *cookie))
            replies.append(await world.ask(f"{target}?access_token={text}"))
            replies.append(await world.ask(f"{target}?access_token={text}", method="DELETE"))
    for target in ("/keys/planted", "/keys/../planted", "/topics/planted"):
        replies.append(await world.ask(target, ("X-API-Key", NEWS_KEY)))
        replies.append(await world.ask(target, bearer(FILE_KEY)))
    replies.append(await world.ask(f"/keys/planted?key={SHOP_KEY}"))
    replies.append(await world.ask(f"/keys/planted?key={SHOP_KEY}&key={OTHER_SECRET}"))
    for route in ("token", "shared", "kept-get"):
        async with Downstream(world.port) as downstream:
            await downstream.ask(f"/{route}/stream-planted?access_token={good}", "GET", [("Accept", "text/event-stream")])
            await (await downstream.answer()).receive(1)
    async with Downstream(world.port) as downstream:
        await downstream.send(f"GET /token?access_token={good} HTTP/1.1\r\nAuthorization: Bearer {good}\r\nbad\r\n\r\n".encode())
        await downstream.ended()
    metrics = await asyncio.to_thread(lambda: httpx.get(world.gateway.status_url + "/metrics", trust_env=False).text)
    places = {
        "log": world.gateway.output.read_text(),
        "metrics": metrics,
        "answers": repr(replies),
        "upstream": repr([asked for asked in world.upstream.requests if "planted" in asked.target]),
    }
    assert "planted" in places["log"]
    for place, found in places.items():
        for secret in (*world.secrets, SECRET, OTHER_SECRET, *(part for text in tokens for part in secret_parts(text))):
            assert secret not in found, place
