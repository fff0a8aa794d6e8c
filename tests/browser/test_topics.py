"""A page of another origin subscribes to topics and publishes to them."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.page_server import serve_pages
from tests.browser.pages import TOPIC_PAGE, launch, publish, received, subscribe, wait_for_event
from tests.publishing import Publisher
from tests.stack import Stack, run_stack, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

KEY = "page-key"


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serve_pages({"/page.html": TOPIC_PAGE}) as origin:
        yield origin


@pytest.fixture(scope="module")
def stack(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with run_stack(tmp_path_factory.mktemp("stack"), PRODUCER_CORS_ORIGINS=json.dumps([origin]), PRODUCER_PUBLISH_KEYS=KEY) as stack:
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


def test_page_gets_what_it_publishes_and_a_repetition_only_once(page: Page, stack: Stack) -> None:
    subscribe(page, f"{stack.url}/topics/page.*/events?from=start")
    url = f"{stack.url}/topics/page.chat/events"
    status, first = publish(page, url, KEY, "one", {"data": {"text": "Grüße, 世界"}})
    assert status == 201
    assert publish(page, url, KEY, "one", {"data": {"text": "Grüße, 世界"}}) == (200, first)
    status, second = publish(page, url, KEY, "two", {"data": "two\nlines"})
    assert status == 201
    wait_for_event(page, second["id"])
    assert received(page) == [(first["id"], '{"text":"Grüße, 世界"}'), (second["id"], "two\nlines")]


def test_page_can_read_why_it_may_not_publish(page: Page, stack: Stack) -> None:
    status, problem = publish(page, f"{stack.url}/topics/page.refused/events", "another-key", "one", {"data": "x"})
    assert status == 403
    assert "PRODUCER_PUBLISH_KEYS" in problem["detail"]


def test_page_of_an_origin_that_is_not_allowed_cannot_publish(browser: Browser, stack: Stack) -> None:
    with serve_pages({"/page.html": TOPIC_PAGE}) as stranger, browser.new_context() as context:
        page = context.new_page()
        page.goto(stranger + "/page.html")
        status, error = publish(page, f"{stack.url}/topics/page.strange/events", KEY, "one", {"data": "x"})
    assert status == 0
    assert "Failed to fetch" in error


@pytest.mark.parametrize("name", ["producer", "gateway"])
def test_event_source_misses_and_repeats_nothing_when_a_service_is_killed(page: Page, stack: Stack, name: str) -> None:
    [service] = [service for service in stack.services if service.name == name]
    with Publisher(stack.url, f"{name}.orders", key=KEY) as publisher:
        subscribe(page, f"{stack.url}/topics/{name}.*/events?from=start")
        page.wait_for_function("events.length > 20")
        service.kill()
        service.start()
        service.wait_until_ready()
        known = publisher.count()
        wait_until(lambda: publisher.count() > known, "another acknowledged event")
        wait_for_event(page, publisher.acknowledged[-1][0])
    wait_for_event(page, publisher.acknowledged[-1][0])
    assert received(page) == publisher.acknowledged
