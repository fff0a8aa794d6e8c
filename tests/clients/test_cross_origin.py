"""Test that a page of another origin resumes a stream of the producer, allowed by the producer's own CORS fields."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.npm import fetch_event_source
from tests.browser.page_server import serve_pages
from tests.clients.chat_page import CHAT_PAGE, chat_page, ends, launch
from tests.clients.line import Line
from tests.kit.stack import SentCount, Stack, run_stack

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.browser,
    pytest.mark.npm,
    pytest.mark.timeout(300),
]

MESSAGE = "Grüße, 世界! " * 15
ROUTES = """
[[routes]]
path = "/"

[[routes]]
path = "/sse"
mode = "resumable"
"""


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    modules = fetch_event_source(tmp_path_factory.mktemp("npm"))
    with serve_pages({"/page.html": CHAT_PAGE} | modules) as origin:
        yield origin


@pytest.fixture(scope="module")
def stack(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    (directory / "routes.toml").write_text(ROUTES)
    producer = {"PRODUCER_CORS_ORIGINS": json.dumps([origin]), "PRODUCER_INTERVAL_MS": "30", "PRODUCER_RETRY_MS": "200"}
    with run_stack(directory, GATEWAY_CONFIG=str(directory / "routes.toml"), **producer) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def line(stack: Stack) -> AsyncIterator[Line]:
    async with Line(int(stack.url.rpartition(":")[2])) as line:
        yield line


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with launch(chromium) as browser:
        yield browser


async def read_text(page: Page) -> str:
    return "".join(data for _, data in await page.evaluate("events"))


async def test_page_and_viewer_of_another_origin_resume_a_stream_of_the_producer(
    origin: str, stack: Stack, line: Line, browser: Browser
) -> None:
    sent = SentCount(stack, "POST /sse")
    async with chat_page(browser, origin) as page, chat_page(browser, origin) as viewer:
        await page.evaluate("([url, message]) => void ask(url, { message }, {})", [line.url + "/sse", MESSAGE])
        await page.wait_for_function("events.length > 3 || state.startsWith('failed')")
        [[status, stream]] = await page.evaluate("openings")
        assert status == 200
        await viewer.evaluate("url => follow(url)", f"{line.url}/streams/{stream}")
        await viewer.wait_for_function("events.length > 3 || state === 'ended'")
        line.cut()
        for watched in (page, viewer):
            await ends(watched)
            assert await read_text(watched) == MESSAGE
            assert await watched.evaluate("losses") >= 1
    assert sent.now() == len(MESSAGE)
