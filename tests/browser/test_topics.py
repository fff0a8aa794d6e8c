"""A page of another origin subscribes to topics and publishes to them."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.page_server import serve_pages
from tests.browser.pages import TOPIC_PAGE, launch, publish, received, subscribe, wait_for_event
from tests.kit.publishing import Publisher
from tests.kit.stack import REPOSITORY, Stack, run_stack
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

KEY = "page-key"


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serve_pages({"/page.html": TOPIC_PAGE}) as origin:
        yield origin


@pytest.fixture(scope="module")
def stack(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("stack")
    routes = directory / "routes.toml"
    patient = 'mode = "shared"\nwait_seconds = 60'  # however long the producer needs to start on a busy machine
    routes.write_text((REPOSITORY / "gateway/routes.toml").read_text().replace('mode = "shared"', patient))
    variables = {"PRODUCER_CORS_ORIGINS": json.dumps([origin]), "PRODUCER_PUBLISH_KEYS": KEY, "GATEWAY_CONFIG": str(routes)}
    with run_stack(directory, **variables) as stack:
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


def test_page_gets_the_events_it_publishes_and_a_repetition_only_once(page: Page, stack: Stack) -> None:
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


def test_event_source_misses_and_repeats_nothing_when_the_gateway_is_killed(page: Page, stack: Stack) -> None:
    with Publisher(stack.url, "gateway.orders", key=KEY) as publisher:
        subscribe(page, f"{stack.url}/topics/gateway.*/events?from=start")
        page.wait_for_function("events.length > 20")
        stack.gateway.kill()
        stack.gateway.start()
        stack.gateway.wait_until_ready()
        wait_for_more(publisher)
        wait_for_event(page, publisher.acknowledged[-1][0])
    wait_for_event(page, publisher.acknowledged[-1][0])
    assert received(page) == publisher.acknowledged


def test_restart_of_the_producer_is_invisible_also_to_an_event_source_that_arrives_during_it(page: Page, stack: Stack) -> None:
    with Publisher(stack.url, "producer.orders", key=KEY) as publisher:
        subscribe(page, f"{stack.url}/topics/producer.*/events?from=start")
        page.wait_for_function("events.length > 20")
        stack.producer.kill()
        late = page.context.new_page()
        late.goto(page.url)
        late.evaluate("url => subscribe(url)", f"{stack.url}/topics/producer.orders/events?from=start")  # no client follows that yet
        stack.producer.start()
        stack.producer.wait_until_ready()
        wait_for_more(publisher)
    for each in (page, late):
        wait_for_event(each, publisher.acknowledged[-1][0])
        assert received(each) == publisher.acknowledged
        assert each.evaluate("[errors, state]") == [0, "open"]


def wait_for_more(publisher: Publisher) -> None:
    known = publisher.count()
    wait_until(lambda: publisher.count() > known, "another acknowledged event")
