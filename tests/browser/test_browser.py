"""Chromium reads the stack's streams from a page of another origin."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.npm import fetch_event_source
from tests.browser.page_server import serve_pages
from tests.browser.pages import launch
from tests.kit.stack import DEMO_TEXT, SentCount, Stack, run_stack

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>reader</title>
<script>
  window.events = [];
  window.state = "idle";

  function readWithEventSource(url) {
    const source = new EventSource(url, { withCredentials: true });
    window.source = source;
    source.onopen = () => { window.state = "open"; };
    source.onmessage = (event) => { events.push({ data: event.data, id: event.lastEventId }); };
    source.onerror = () => { window.state = source.readyState === EventSource.CLOSED ? "failed" : "reconnecting"; };
  }

  async function readWithFetch(url, message) {
    const { fetchEventSource } = await import("/fetch-event-source/index");
    window.state = "open";
    try {
      await fetchEventSource(url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ message }),
        credentials: "include",
        openWhenHidden: true,
        onmessage(event) { events.push({ data: event.data, id: event.id }); },
        onerror(error) { throw error; },
      });
      window.state = "ended";
    } catch (error) {
      window.state = `failed: ${error}`;
    }
  }
</script>
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the modules of fetch-event-source, by path."""
    return fetch_event_source(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Return the content of the page's server; tests add to it."""
    return {"/page.html": PAGE}


@pytest.fixture(scope="module")
def origin(pages: dict[str, str]) -> Iterator[str]:
    with serve_pages(pages) as origin:
        yield origin


@pytest.fixture(scope="module")
def stack(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_CORS_ORIGINS=json.dumps([origin]), PRODUCER_RETRY_MS="200") as stack:
        yield stack


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    with browser.new_context() as context:
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(origin + "/page.html")
        yield page


def read_text(page: Page) -> str:
    return "".join(event["data"] for event in page.evaluate("events"))


def test_event_source_of_another_origin_streams_the_demo_sentence_with_credentials(page: Page, stack: Stack) -> None:
    sent = SentCount(stack, "GET /")
    page.evaluate("url => readWithEventSource(url)", stack.url + "/")
    page.wait_for_function("events.length > 0")
    assert sent.now() < len(DEMO_TEXT)
    page.wait_for_function("count => events.length >= count", arg=len(DEMO_TEXT))
    page.evaluate("source.close()")
    assert read_text(page)[: len(DEMO_TEXT)] == DEMO_TEXT, "it may have begun again"


def test_event_source_of_an_origin_that_is_not_allowed_fails(browser: Browser, stack: Stack) -> None:
    with serve_pages({"/page.html": PAGE}) as stranger, browser.new_context() as context:
        page = context.new_page()
        page.goto(stranger + "/page.html")
        page.evaluate("url => readWithEventSource(url)", stack.url + "/")
        page.wait_for_function("state === 'failed'")
        assert page.evaluate("events") == []


def test_event_source_resumes_when_the_gateway_is_killed(page: Page, stack: Stack) -> None:
    page.evaluate("url => readWithEventSource(url)", stack.url + "/?ids=true")
    page.wait_for_function("events.length > 3")
    stack.gateway.kill()
    page.wait_for_function("state === 'reconnecting'")
    stack.gateway.start()
    stack.gateway.wait_until_ready()
    page.wait_for_function("state === 'failed'")  # 204: nothing is left, which ends an EventSource for good
    assert read_text(page) == DEMO_TEXT


@pytest.mark.npm
def test_fetch_event_source_posts_a_message_and_streams_it_back(
    page: Page, pages: dict[str, str], modules: dict[str, str], stack: Stack
) -> None:
    pages |= modules
    message = "Grüße, 世界! " * 3
    sent = SentCount(stack, "POST /sse")
    page.evaluate("([url, message]) => void readWithFetch(url, message)", [stack.url + "/sse", message])
    page.wait_for_function("events.length > 0 || state.startsWith('failed')")
    assert sent.now() < len(message)
    page.wait_for_function("state !== 'open'")
    assert page.evaluate("state") == "ended"
    assert read_text(page) == message
    ids = [event["id"] for event in page.evaluate("events")]
    stream = ids[0].partition("-")[0]
    assert len(stream) == 32
    assert ids == [f"{stream}-{number}" for number in range(1, len(message) + 1)]
