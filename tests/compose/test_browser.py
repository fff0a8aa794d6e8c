"""A real `EventSource` follows a topic through the containers, and resumes by itself when they restart."""

import subprocess

import pytest

from eventstream import Parser
from tests.browser.page_server import serve_pages
from tests.browser.pages import TOPIC_PAGE, launch, publish, received, subscribe, wait_for_event
from tests.compose.project import DEVELOPMENT_KEY, Project
from tests.kit.publishing import Publisher
from tests.kit.stack import clean_environment
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.curl, pytest.mark.timeout(600)]


def test_page_misses_and_repeats_no_event_through_restarts(project: Project, chromium: str) -> None:
    with serve_pages({"/page.html": TOPIC_PAGE}) as origin, launch(chromium) as browser, browser.new_context() as context:
        context.set_default_timeout(180_000)
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


def test_subscribers_do_not_notice_that_the_producer_was_killed(project: Project, chromium: str) -> None:
    url = f"{project.url}/topics/flash.*/events?from=start"
    command = ["curl", "--silent", "--show-error", "--fail", "--no-buffer", "--noproxy", "*", url]
    with (
        serve_pages({"/page.html": TOPIC_PAGE}) as origin,
        launch(chromium) as browser,
        browser.new_context() as context,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as curl,
    ):
        context.set_default_timeout(180_000)
        page = context.new_page()
        page.goto(origin + "/page.html")
        with Publisher(project.url, "flash.now", key=DEVELOPMENT_KEY) as publisher:
            subscribe(page, url)
            page.wait_for_function("events.length > 20")
            project.compose("kill", "producer")
            project.compose("up", "--detach", "--wait", "--wait-timeout", "120", "producer")
            known = publisher.count()
            wait_until(lambda: publisher.count() > known + 20, "more acknowledged events")
        wait_for_event(page, publisher.acknowledged[-1][0])
        assert page.evaluate("[errors, state]") == [0, "open"]
        assert received(page) == publisher.acknowledged
        assert curl.poll() is None
        wait_until(lambda: project.shown_ids() >= {id for id, _ in publisher.acknowledged}, "the consumer has them too")
        curl.terminate()
        output, complaint = curl.communicate(timeout=60)
        assert complaint == b""
        events = Parser().feed(output)
        assert [(event.id, event.data) for event in events] == publisher.acknowledged
    logged = [(record["id"], record["data"]) for record in project.logged() if record["id"] in dict(publisher.acknowledged)]
    assert logged == publisher.acknowledged
