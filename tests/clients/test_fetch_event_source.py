"""Test that fetch-event-source and EventSource in a browser resume an answer whose connection was killed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.npm import fetch_event_source
from tests.browser.page_server import serve_pages
from tests.clients.chat_page import CHAT_PAGE, chat_page, ends, launch, shows
from tests.clients.line import Line
from tests.clients.provider import KEY, Provider
from tests.kit.routed_gateway import Route, running
from tests.kit.upstream import Pause

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.browser,
    pytest.mark.npm,
    pytest.mark.timeout(300),
]

ASK = "model => void ask('/v1/chat/completions', { model, stream: true, messages: [] }, {})"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[int]:
    """Yield the port of a gateway with a page and the provider as one origin. The gateway has the provider's key, browsers do not."""
    modules = fetch_event_source(tmp_path_factory.mktemp("npm"))
    with serve_pages({"/page.html": CHAT_PAGE} | modules) as pages:
        chat: Route = {"path": "/v1", "upstream": provider.url, "mode": "resumable", "request_headers": {"Authorization": f"Bearer {KEY}"}}
        routes = [chat | {"heartbeat_seconds": 0.1}, {"path": "/", "upstream": pages}]
        async with running(routes, tmp_path_factory.mktemp("gateway")) as gateway:
            yield gateway.port


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launch(chromium) as browser:
        yield browser


async def test_page_shows_the_complete_answer_once_despite_a_killed_connection(site: int, browser: Browser, provider: Provider) -> None:
    pause = Pause()
    model = provider.model(pause)
    async with Line(site) as line, chat_page(browser, line.url) as page:
        await page.evaluate(ASK, model.name)
        await shows(page, model.first_half)
        line.cut()
        await page.wait_for_function("losses === 1 && openings.length === 2")
        pause.go()
        await ends(page)
        assert await page.evaluate("text()") == model.text
        openings, events = await page.evaluate("openings"), await page.evaluate("events")
    assert len(model.calls) == 1
    [(status, stream), again] = openings
    assert (status, stream) == (200, again[1])
    assert [id for id, _ in events] == [f"{stream}-{number}" for number in range(1, len(events) + 1)]


async def test_page_gets_the_events_that_it_missed_while_disconnected(site: int, browser: Browser, provider: Provider) -> None:
    pause = Pause()
    model = provider.model(pause)
    async with Line(site) as line, chat_page(browser, line.url) as page:
        await page.evaluate(ASK, model.name)
        await shows(page, model.first_half)
        line.cut()
        pause.go()
        await ends(page)
        assert await page.evaluate("text()") == model.text
        assert await page.evaluate("losses") == 1
    assert len(model.calls) == 1


async def test_page_loses_no_event_when_its_connection_is_killed_inside_one(site: int, browser: Browser, provider: Provider) -> None:
    pause = Pause()
    model = provider.model(pause)
    within = f'"content": "{model.tokens[len(model.tokens) // 2]}'
    async with Line(site) as line, chat_page(browser, line.url) as page:
        await page.evaluate(ASK, model.name)
        await shows(page, model.first_half)
        line.hold_after(within.encode())
        pause.go()
        await page.wait_for_function("within => raw.endsWith(within)", arg=within)
        line.cut()
        await ends(page)
        assert await page.evaluate("text()") == model.text
    assert len(model.calls) == 1


async def test_event_source_follows_the_answer_of_another_page_through_a_killed_connection(
    site: int, browser: Browser, provider: Provider
) -> None:
    pause = Pause()
    model = provider.model(pause)
    async with Line(site) as line, chat_page(browser, line.url) as page, chat_page(browser, line.url) as viewer:
        await page.evaluate(ASK, model.name)
        await shows(page, model.first_half)
        [[_, stream]] = await page.evaluate("openings")
        await viewer.evaluate("url => follow(url)", f"/streams/{stream}")
        await shows(viewer, model.first_half)
        line.cut()
        for watched in (page, viewer):
            await watched.wait_for_function("losses === 1 && openings.length === 2")
        pause.go()
        for watched in (page, viewer):
            await ends(watched)  # an EventSource ends at the 204 of its next reconnection
            assert await watched.evaluate("text()") == model.text
        assert await page.evaluate("events") == await viewer.evaluate("events")
    assert len(model.calls) == 1
