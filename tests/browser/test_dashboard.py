"""The dashboard in Chromium: what it shows of a running stack, and its controls."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.browser.pages import SHOWN_MS, launch
from tests.kit.stack import Stack, run_stack
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CLOCK = "/topics/demo.clock/events"
HOST = "/topics/demo.host/events"
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = {};
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [light, dark] = [getComputedStyle(element).color, behind(element)].map(luminance).sort((a, b) => b - a);
    found[element.className || element.tagName] = (light + 0.05) / (dark + 0.05);
  }
  return found;
}"""

BEYOND = """(width) => [...document.querySelectorAll("main *:not(thead *)")]  // each cell names its column instead
  .filter((element) => element.getBoundingClientRect().right > width)
  .map((element) => element.outerHTML)"""
SHIFTS = """() => {
  window.shifts = [];
  const elements = (entry) => entry.sources.map(({ node }) => node?.parentElement ?? node);
  const isMoved = (element) => !element?.closest("#lane");  // the marks there move with the time
  const note = (list) => shifts.push(...list.getEntries().flatMap(elements).filter(isMoved).map((element) => element?.textContent));
  new PerformanceObserver(note).observe({ type: "layout-shift" });
}"""

NO_FIGURES = """() => {  // as it is before the first ones
  for (const id of ["subscribers", "stream-count", "in", "out", "sent"]) document.getElementById(id).textContent = "–";
}"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_DEMO="true") as stack:
        yield stack


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


class Dashboard:
    """The page, its requests and its errors."""

    def __init__(self, page: Page, stack: Stack) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.goto(stack.gateway.status_url + "/")
        self.says("Live")

    def says(self, text: str) -> None:
        expect(self.page.locator("#connection")).to_have_text(text)

    def row(self, table: str, text: str) -> Any:
        """Return the row of a table that has this text."""
        return self.page.locator(f"#{table} tbody tr").filter(has_text=text)

    def cell(self, table: str, text: str, name: str) -> Any:
        return self.row(table, text).locator(f"td[data-name='{name}']")

    def tail(self, path: str) -> None:
        self.page.get_by_role("button", name=f"Tail {path}", exact=True).first.click()


@contextmanager
def opened(browser: Browser, stack: Stack, **options: Any) -> Iterator[Dashboard]:
    with browser.new_context(**{"reduced_motion": "reduce", "viewport": ViewportSize(width=1280, height=800)} | options) as context:
        context.set_default_timeout(SHOWN_MS)
        yield Dashboard(context.new_page(), stack)


@contextmanager
def subscribed(stack: Stack, count: int, path: str = CLOCK) -> Iterator[None]:
    with httpx.Client(trust_env=False, timeout=60) as http, ExitStack() as streams:
        for _ in range(count):
            streams.enter_context(http.stream("GET", stack.url + path, headers={"Accept": "text/event-stream"}))
        yield


def test_services_routes_streams_and_ends_are_shown(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, subscribed(stack, 3, HOST + "?last_event_id=s3cr3t"):
        cards = seen.page.locator("#services > li")
        expect(cards).to_have_count(3)
        for name, card in zip(("gateway", "producer", "consumer"), cards.all(), strict=True):
            expect(card.locator("h3")).to_have_text(re.compile(f"{name}.*ready"))
            expect(card.locator("dd")).to_have_count(3)
        expect(seen.page.locator("#routes tbody tr")).to_have_count(4)
        expect(seen.cell("streams", HOST, "Subscribers")).to_have_text("3")
        expect(seen.cell("streams", HOST, "Events /s")).to_have_text(re.compile("^(0.9|1.0|1.1)$"))
        expect(seen.page.locator("#in")).not_to_have_text("–")
        assert "s3cr3t" not in seen.page.content()
        httpx.post(stack.url + "/sse", json={"message": "a b"}, trust_env=False)
        expect(seen.row("ended", "/sse").first).to_contain_text("complete")
        seen.page.fill("#filter", "nothing like that")
        expect(seen.page.locator("#no-streams")).to_have_text("No listed stream matches.")
        assert seen.complaints == []
        assert {urlsplit(url).netloc for url in seen.requests} == {urlsplit(stack.gateway.status_url).netloc}
        assert sum(url.endswith("/dashboard/events") for url in seen.requests) == 1


def test_tail_shows_chunks_and_blocks_and_works_with_the_keyboard_alone(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, subscribed(stack, 1):
        page = seen.page
        button = page.get_by_role("button", name=f"Tail {CLOCK}", exact=True)
        page.locator("#filter").focus()
        page.keyboard.type("clock")
        expect(page.locator("#streams tbody tr")).to_have_count(1)
        page.keyboard.press("Tab")
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name=CLOCK)).to_be_visible()
        chunk = page.locator("#tail-log li").filter(has_text="chunk of").first
        expect(chunk).to_contain_text("completes 1 block")
        expect(chunk.locator("pre")).to_contain_text("data: ")
        expect(chunk.locator("pre")).to_contain_text("\\n")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(page.locator("#tail-pause")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#tail-state")).to_contain_text("arrived meanwhile")
        page.keyboard.press("Escape")
        expect(button).to_be_focused()
        expect(page.locator("dialog")).to_be_hidden()
        assert seen.complaints == []


def test_tail_shows_what_the_gateway_added_and_that_a_stream_has_ended(browser: Browser, stack: Stack) -> None:
    body = {"message": "one two three four five six seven eight nine ten"}
    with opened(browser, stack) as seen, httpx.Client(trust_env=False, timeout=60) as http:
        with http.stream("POST", f"{stack.url}/sse?split=word&interval_ms=500", json=body) as answer:
            seen.tail("/sse")
            log = seen.page.locator("#tail-log")
            expect(log.locator(".sent").first).to_have_text(re.compile(r"^sent with id: [0-9a-f]{32}-\d+$"))
            answer.read()
            expect(log).to_contain_text("The stream has ended: complete")
        expect(seen.page.locator("#tail-state")).to_have_text("Ended: complete")


@pytest.mark.parametrize("width", [320, 390])
def test_page_and_tail_fit_a_phone(browser: Browser, stack: Stack, width: int) -> None:
    with opened(browser, stack, viewport=ViewportSize(width=width, height=844)) as seen, subscribed(stack, 2), answering(stack):
        expect(seen.row("streams", CLOCK)).to_be_visible()
        expect(seen.row("streams", "/sse").get_by_text("Stop", exact=True)).to_be_visible()
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        assert seen.page.evaluate(BEYOND, width) == []
        seen.tail(CLOCK)
        expect(seen.page.locator("#tail-log li").filter(has_text="chunk of").first).to_be_visible()
        assert seen.page.locator("dialog").bounding_box() == {"x": 0, "y": 0, "width": width, "height": 844}
        assert seen.page.evaluate("document.querySelector('dialog').scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_enough_contrast(browser: Browser, stack: Stack, scheme: str) -> None:
    with opened(browser, stack, color_scheme=scheme) as seen, subscribed(stack, 1), answering(stack):
        expect(seen.row("streams", CLOCK)).to_be_visible()
        seen.page.get_by_role("button", name="Stop /sse", exact=True).click()
        contrasts = seen.page.evaluate(CONTRASTS)
        assert len(contrasts) > 15
        assert {name: contrast for name, contrast in contrasts.items() if contrast < 4.5} == {}


def test_every_element_has_a_name_and_the_layout_is_stable(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, subscribed(stack, 1):
        page = seen.page
        expect(seen.row("streams", CLOCK)).to_be_visible()
        # Only this stream and the consumer's remain when those of other tests have lingered.
        expect(page.locator("#streams tbody tr")).to_have_count(2)
        page.evaluate(SHIFTS)
        page.evaluate(NO_FIGURES)
        names = page.locator("body").aria_snapshot()
        for name in ('table "Routes"', 'table "Streams"', f'button "Tail {CLOCK}"', 'img "Events per second, the last 3 minutes'):
            assert name in names
        assert re.search(r'searchbox "Show only streams whose path or route contains', names)
        assert page.evaluate("document.getAnimations().length") == 0
        line = page.locator("#events-chart path.line.first")
        for _ in range(3):  # snapshots
            expect(line).not_to_have_attribute("d", line.get_attribute("d") or "")
        assert page.evaluate("shifts") == []


@contextmanager
def answering(stack: Stack, target: str = "/sse?split=word&interval_ms=500") -> Iterator[httpx.Response]:
    """Yield a kept answer that runs for a minute."""
    body = {"message": " ".join(map(str, range(120)))}
    with httpx.Client(trust_env=False, timeout=60) as http, http.stream("POST", stack.url + target, json=body) as answer:
        yield answer
        http.delete(f"{stack.url}/streams/{answer.headers['Stream-Id']}")


def test_second_press_stops_a_kept_answer_upstream_too(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, subscribed(stack, 1), answering(stack) as answer:
        row = seen.row("streams", "/sse")
        button = row.locator(".stop")
        expect(button).to_have_accessible_name("Stop /sse")
        expect(seen.row("streams", CLOCK).get_by_role("button")).to_have_text(["Tail"])
        wait_until(lambda: stack.producer.metric("producer_streams_open", route="POST /sse") == 1, "the producer has one stream")
        button.click()
        expect(button).to_have_text("Sure?")
        expect(button).to_have_accessible_name("Press again to stop /sse")
        expect(button).to_have_text("Stop")  # not confirmed in time
        button.click()
        button.click()
        expect(row).to_have_count(0)
        expect(seen.row("ended", "stopped on the dashboard").first).to_contain_text("/sse")
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
        wait_until(lambda: stack.producer.metric("producer_streams_open", route="POST /sse") == 0, "the producer has no stream")
        assert seen.complaints == []


def test_stop_that_fails_is_explained(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, answering(stack):
        seen.page.route("**/dashboard/stop/*", lambda route: route.fulfill(status=409, json={"detail": "it has ended"}))
        button = seen.row("streams", "/sse").locator(".stop")
        button.click()
        button.click()
        expect(seen.page.locator("#stop-state")).to_have_text("/sse was not stopped: it has ended")
        button.click()
        seen.page.unroute("**/dashboard/stop/*")
        button.click()
        expect(seen.row("streams", "/sse")).to_have_count(0)
        expect(seen.page.locator("#stop-state")).to_have_text("")


def test_lost_upstream_is_marked_and_a_dead_service_is_shown(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen, subscribed(stack, 1):
        expect(seen.row("streams", CLOCK)).to_be_visible()
        stack.producer.kill()
        marks = seen.page.locator("#marks")
        expect(marks).to_contain_text("Upstream lost")
        producer = seen.page.locator("#services > li").nth(1)
        expect(producer).to_contain_text("unreachable")
        expect(producer).to_contain_text("does not answer")
        expect(seen.cell("streams", CLOCK, "State")).to_contain_text("reconnecting")
        stack.producer.start()
        expect(marks).to_contain_text("Upstream is back")
        expect(producer).to_contain_text("ready")
        expect(seen.page.locator("#lane .glyph.lost").first).to_be_visible()
        assert httpx.post(f"{stack.gateway.status_url}/reload", trust_env=False).status_code == 200
        expect(marks).to_contain_text("Routes reloaded", timeout=SHOWN_MS)
        expect(seen.page.locator("#lane .glyph.reloaded")).to_be_visible()
        expect(seen.cell("streams", CLOCK, "State")).to_contain_text("1 reconnection")


def test_page_reconnects_by_itself_when_the_gateway_restarts(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack) as seen:
        assert stack.gateway.stop() == 0
        seen.says("Connection lost; reconnecting")
        assert seen.page.locator("main").get_attribute("class") == "stale"
        stack.gateway.start()
        seen.says("Live")
        wait_until(lambda: seen.page.locator("#services .state").first.inner_text() == "ready", "the gateway ready")
        assert seen.page.locator("main").get_attribute("class") == ""
