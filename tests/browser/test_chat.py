"""Chromium with the AI SDK shows each answer of examples/chat/ whole and once: after reloads, cuts and restarts, and in each tab."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.browser.chat import MAJORS, Chat, Service, Tab, build, running_service
from tests.browser.pages import BROWSER_FLAGS
from tests.clients.line import Line
from tests.doctor.proxies import caddy_with_tls

pytestmark = [
    pytest.mark.world,
    pytest.mark.browser,
    pytest.mark.npm,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

_log = logging.getLogger(__name__)

SECONDS_PER_WORD = 0.01
ANSWER_SECONDS = 1.6
"""About the time of an answer to a short question."""
RELOADS = 5
"""How often each of two pages is reloaded in its answer."""
SOME_WORDS = 10
LONG_QUESTION = "word " * 8000
"""Its answer takes longer than any test."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directory of the bundles by major version of the AI SDK."""
    directory = tmp_path_factory.mktemp("pages")
    built = await asyncio.gather(*(build(major, directory / major) for major in MAJORS))
    return dict(zip(MAJORS, built, strict=True))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    async with running_service(tmp_path_factory.mktemp("chat"), SECONDS_PER_WORD) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS, timeout=120_000)
        yield browser
        await browser.close()


class Chats:
    """Opens chats, each with cookies of its own."""

    def __init__(self, stack: AsyncExitStack, browser: Browser, service: Service, bundles: dict[str, Path]) -> None:
        self._stack = stack
        self._browser = browser
        self._service = service
        self._bundles = bundles

    async def open(self, major: str = "7", url: str = "", script: str = "page.js") -> tuple[Chat, Tab]:
        """Open a chat with a major version of the AI SDK, by default at the gateway itself."""
        context = await self._stack.enter_async_context(await self._browser.new_context(ignore_https_errors=True))
        chat = Chat(context, self._service, self._bundles[major] / script)
        return chat, await chat.open(url or f"http://localhost:{self._service.gateway.port}")


@pytest_asyncio.fixture(loop_scope="module")
async def chats(browser: Browser, service: Service, bundles: dict[str, Path]) -> AsyncIterator[Chats]:
    async with AsyncExitStack() as stack:
        yield Chats(stack, browser, service, bundles)


@pytest_asyncio.fixture(loop_scope="module")
async def line(service: Service) -> AsyncIterator[Line]:
    """Yield a line to the gateway, which a test can cut."""
    async with Line(service.gateway.port) as line:
        yield line


@pytest.mark.parametrize("major", MAJORS)
async def test_reload_at_any_moment_shows_the_whole_answer_once(chats: Chats, major: str) -> None:
    seed = random.randrange(2**32)
    _log.warning("seed %d", seed)  # pytest shows it if the test fails
    chance = random.Random(seed)

    async def reload(chat: Chat, tab: Tab, moments: list[float]) -> None:
        await chat.ask(tab)
        now = asyncio.get_running_loop().time
        begin = now()
        for moment in sorted(moments):
            await asyncio.sleep(begin + moment - now())
            await tab.load()
        await tab.shows_answer()

    opened = [await chats.open(major) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for chat, tab in opened:
            group.create_task(reload(chat, tab, [chance.uniform(0, ANSWER_SECONDS) for _ in range(RELOADS)]))


@pytest.mark.parametrize("major", MAJORS)
async def test_second_tab_shows_the_same_answer(chats: Chats, major: str) -> None:
    chat, first = await chats.open(major)
    await chat.ask(first)
    await first.shows_words(SOME_WORDS)
    second = await chat.open_again()
    await first.shows_answer()
    await second.shows_answer()


@pytest.mark.parametrize("major", MAJORS)
async def test_stop_ends_the_service_too_which_keeps_what_it_has(chats: Chats, major: str) -> None:
    chat, tab = await chats.open(major)
    await chat.ask(tab, LONG_QUESTION)
    await tab.shows_words(SOME_WORDS)
    other = await chat.open_again()
    await other.shows_words(SOME_WORDS)
    await tab.page.click("button")
    await tab.becomes("ready")
    await other.becomes("error")
    await other.page.click("text=Reconnect")
    await other.becomes("ready")
    text = await chat.answer()
    [shown] = await tab.texts()
    assert text.startswith(shown)
    await tab.load()
    await tab.shows_answer()


async def test_answer_outlives_a_drained_gateway(chats: Chats, service: Service) -> None:
    opened = [await chats.open(major) for major in MAJORS]
    for chat, tab in opened:
        await chat.ask(tab, "word " * 400)
    for _, tab in opened:
        await tab.load()  # a GET follows the answer now
        await tab.shows_words(SOME_WORDS)
    await service.gateway.stop()
    for _, tab in opened:
        await tab.shows_answer()
    await service.gateway.start()
    for _, tab in opened:
        await tab.load()
        await tab.shows_answer()


async def test_page_that_becomes_visible_after_a_cut_shows_the_whole_answer_once(chats: Chats, line: Line) -> None:
    chat, tab = await chats.open(url=f"http://localhost:{line.port}")
    await ask_and_cut(chat, tab, line)
    await tab.becomes("error")
    await tab.becomes_visible()
    await tab.shows_answer()


async def test_page_that_is_online_again_shows_the_whole_answer_once(chats: Chats, line: Line) -> None:
    chat, tab = await chats.open(url=f"http://localhost:{line.port}")
    await ask_and_cut(chat, tab, line, offline=True)
    await tab.becomes("error")
    await chat.answer()  # it ends while the page is offline
    await chat.context.set_offline(False)
    await tab.shows_answer()


async def ask_and_cut(chat: Chat, tab: Tab, line: Line, *, offline: bool = False) -> None:
    """Ask, and reset the connection in the middle of the answer's second word."""
    line.hold_after(b"asked:")
    await chat.ask(tab)
    await tab.shows_words(1)
    await chat.context.set_offline(offline)
    line.cut()


@pytest.mark.caddy
async def test_reload_and_cut_over_http_2_behind_caddy(chats: Chats, service: Service, tmp_path: Path) -> None:
    gateway = f"http://127.0.0.1:{service.gateway.port}"
    async with caddy_with_tls(gateway, tmp_path) as (url, _), Line(int(url.rpartition(":")[2])) as line:
        chat, tab = await chats.open(url=f"https://localhost:{line.port}")
        await chat.ask(tab, "word " * 100)
        await tab.shows_words(SOME_WORDS)
        await tab.load()
        assert await tab.page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        await tab.shows_words(SOME_WORDS)
        line.cut()
        await tab.is_quiet()
        await tab.becomes_visible()
        await tab.shows_answer()


@pytest.mark.parametrize(("major", "cure"), [("7", "none"), ("6", "chat"), ("5", "remount")])
async def test_page_with_the_documented_cure_resumes_without_a_reload(chats: Chats, line: Line, major: str, cure: str) -> None:
    chat, tab = await chats.open(major, f"http://localhost:{line.port}/#{cure}", "cures.js")
    early = await chat.open_again()
    await ask_and_cut(chat, tab, line)
    await tab.becomes("error")
    await tab.page.click("#resume")
    await tab.shows_answer()
    assert await early.texts() == []
    await early.page.click("#resume")
    await early.shows_answer()


@pytest.mark.parametrize("major", ["5", "6"])
async def test_majors_5_and_6_append_a_replay_to_the_half_answer(chats: Chats, line: Line, major: str) -> None:
    """No server can change this: the requests are those of major 7."""
    chat, tab = await chats.open(major, f"http://localhost:{line.port}")
    await ask_and_cut(chat, tab, line)
    await tab.becomes("error")
    assert await tab.texts() == ["You "]
    await tab.becomes_visible()
    text = await chat.answer()
    await tab.becomes("ready")
    assert await tab.texts() == ["You " + text]
