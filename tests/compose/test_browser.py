"""A real `EventSource` follows a topic through the containers, and goes on by itself when they restart."""

from collections.abc import Iterator

import pytest

from tests.browser.page_server import serve_pages
from tests.browser.pages import TOPIC_PAGE, launch, publish, received, subscribe, wait_for_event
from tests.compose.project import DEVELOPMENT_KEY, Project, run_project
from tests.publishing import Publisher
from tests.stack import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with run_project() as project:
        yield project


def test_page_misses_and_repeats_nothing_through_restarts(project: Project, chromium: str) -> None:
    with serve_pages({"/page.html": TOPIC_PAGE}) as origin, launch(chromium) as browser, browser.new_context() as context:
        context.set_default_timeout(90_000)
        page = context.new_page()
        page.goto(origin + "/page.html")
        with Publisher(project.url, "orders.new", key=DEVELOPMENT_KEY) as publisher:
            subscribe(page, f"{project.url}/topics/orders.*/events?from=start")
            page.wait_for_function("events.length > 20")
            for end, service in ((project.restart, "producer"), (project.kill, "producer"), (project.kill, "gateway")):
                end(service)
                known = publisher.count()
                wait_until(lambda known=known: publisher.count() > known, "another acknowledged event")
                wait_for_event(page, publisher.acknowledged[-1][0])
        status, last = publish(page, f"{project.url}/topics/orders.new/events", DEVELOPMENT_KEY, "last", {"data": "by the page"})
        assert status == 201
        wait_for_event(page, last["id"])
        assert received(page) == [*publisher.acknowledged, (last["id"], "by the page")]
