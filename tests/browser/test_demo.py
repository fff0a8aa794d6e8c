"""The demo page in Chromium: its content and controls, and their effect on the gateway and the producer."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from urllib.parse import urlsplit

import psutil
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.pages import SHOWN_MS, launch
from tests.kit.stack import SentCount, ServiceProcess, Stack, run_stack
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WORDS = 30
PROMPT = "\n".join(" ".join(f"{line}:{word}" for word in range(WORDS // 2)) for line in ("Grüße", "世界"))
SOME = """() => new Promise((resolve) => {
  const events = document.getElementById("events");
  const look = () => Number(events.textContent) >= 5 && resolve();
  new MutationObserver(look).observe(events, { childList: true, characterData: true, subtree: true });
  look();
})"""
SHORT_PROMPT = f"few words, one of them very l{'o' * 60}ng"
"""For tests of the end of the answer only."""


class Seen:
    """The page's requests and errors."""

    def __init__(self, page: Page) -> None:
        self.requests: list[tuple[str, str]] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append((request.method, request.url)))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text))

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for _, url in self.requests}


@pytest.fixture(scope="module", params=["1", "2"], ids=["one process", "two workers"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack"), GATEWAY_WORKERS=request.param) as stack:
        yield stack


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(SHOWN_MS)
        context.clock.install()
        yield context.new_page()


def open_demo(page: Page, stack: Stack, prompt: str = PROMPT) -> Seen:
    seen = Seen(page)
    page.goto(stack.gateway.status_url + "/demo")
    shows(page, "url", stack.url + "/sse")
    page.fill("#prompt", prompt)
    return seen


def shows(page: Page, id: str, text: str | re.Pattern[str]) -> None:
    expect(page.locator(f"#{id}")).to_have_text(text)


def shows_some(page: Page) -> None:
    """Return as soon as the page shows that it is in the middle of the answer."""
    page.evaluate(SOME)


@contextmanager
def standing(page: Page) -> Iterator[None]:
    """Stop the page's clock, so that it does not reconnect meanwhile, however long the test takes."""
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 1"))
    yield
    page.clock.resume()


def assert_is_complete(page: Page, connections: int, prompt: str = PROMPT) -> None:
    shows(page, "state", re.compile("^Complete"))
    assert page.locator("#answer").text_content() == prompt
    shows(page, "events", str(len(prompt.split())))
    shows(page, "connections", str(connections))
    shows(page, "calls", "1")


def kill_all(gateway: ServiceProcess) -> None:
    """Kill the gateway with its workers, which would drain if only they remained."""
    workers = psutil.Process(gateway.pid).children()
    gateway.kill()
    for worker in workers:
        worker.kill()


def test_answer_survives_a_cut_and_upstream_is_called_once(page: Page, stack: Stack) -> None:
    sent = SentCount(stack, "POST /sse")
    left = stack.gateway.metric("gateway_streams_ended_total", route="/sse", verdict="left")
    seen = open_demo(page, stack)
    page.click("#send")
    shows_some(page)
    with standing(page):
        page.click("#cut")
        shows(page, "state", re.compile("^Connection lost"))
        cut_at = int(page.locator("#events").inner_text())
        ended = partial(stack.gateway.metric, "gateway_streams_ended_total", route="/sse", verdict="left")
        wait_until(lambda: ended() == left + 1, "the connection gone")
        wait_until(lambda: sent.now() > cut_at, "upstream continuing without a client")
        assert int(page.locator("#events").inner_text()) == cut_at
    assert_is_complete(page, connections=2)
    assert sent.now() == WORDS
    assert [method for method, url in seen.requests if urlsplit(url).path == "/sse"] == ["POST"]
    stream, _, number = page.locator("#last").inner_text().partition("-")
    assert (len(stream), number) == (32, str(WORDS))
    assert seen.complaints == []
    assert seen.hosts() == {urlsplit(stack.url).netloc, urlsplit(stack.gateway.status_url).netloc}


def test_page_works_with_the_keyboard_alone(page: Page, stack: Stack) -> None:
    open_demo(page, stack)
    page.focus("#prompt")
    page.keyboard.press("Tab")
    expect(page.locator("#send")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#cut")).to_be_focused()
    expect(page.locator("#cut")).to_be_enabled()
    with standing(page):
        page.keyboard.press("Space")
        shows(page, "state", re.compile("^Connection lost"))
        page.keyboard.press("Space")  # there is no stream to cut
        expect(page.locator("#cut")).to_be_focused()
    assert_is_complete(page, connections=2)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    shows_some(page)
    page.keyboard.press("Enter")  # one is already running
    assert_is_complete(page, connections=1)


@pytest.mark.parametrize("meanwhile", ["receiving", "waiting"])
def test_stop_ends_the_stream_and_its_upstream(page: Page, stack: Stack, meanwhile: str) -> None:
    sent = SentCount(stack, "POST /sse")
    seen = open_demo(page, stack)
    page.click("#send")
    shows_some(page)
    with standing(page) if meanwhile == "waiting" else nullcontext():
        if meanwhile == "waiting":
            page.click("#cut")
            shows(page, "state", re.compile("^Connection lost"))
        page.click("#stop")
    shows(page, "state", re.compile("^Stopped"))
    wait_until(lambda: stack.producer.metric("producer_streams_open", route="POST /sse") == 0, "upstream's stream closed")
    assert sent.now() < WORDS
    expect(page.locator("#send")).to_be_enabled()
    page.fill("#prompt", SHORT_PROMPT)
    page.click("#send")
    assert_is_complete(page, connections=1, prompt=SHORT_PROMPT)
    assert next(method for method, url in seen.requests if "/streams/" in url) == "DELETE"


def test_page_shows_why_a_prompt_was_refused(page: Page, stack: Stack) -> None:
    open_demo(page, stack)
    page.fill("#prompt", "x" * 20_000)
    page.click("#send")
    shows(page, "state", re.compile("^Failed: 4[0-9]{2}, .*16384"))
    expect(page.locator("#send")).to_be_enabled()


@pytest.mark.parametrize("size", [ViewportSize(width=320, height=640), ViewportSize(width=390, height=844)], ids=["320", "390"])
def test_page_fits_a_narrow_window(page: Page, stack: Stack, size: ViewportSize) -> None:
    page.set_viewport_size(size)
    open_demo(page, stack, SHORT_PROMPT)
    page.click("#send")
    assert_is_complete(page, connections=1, prompt=SHORT_PROMPT)
    assert page.evaluate("() => document.documentElement.scrollWidth") == size["width"]


def test_page_shows_the_end_of_a_stream_when_the_gateway_is_killed(page: Page, stack: Stack) -> None:
    open_demo(page, stack)
    page.click("#send")
    shows_some(page)
    kill_all(stack.gateway)
    shows(page, "state", re.compile("^Connection lost"))
    stack.gateway.start()
    stack.gateway.wait_until_ready()
    shows(page, "state", re.compile("^Failed: the (stream is cut|gateway no longer has the stream)"))
    page.fill("#prompt", SHORT_PROMPT)
    page.click("#send")
    assert_is_complete(page, connections=1, prompt=SHORT_PROMPT)
