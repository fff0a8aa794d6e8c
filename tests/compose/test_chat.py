"""`docker compose up` in examples/chat/ runs a chat that survives a reload."""

from collections.abc import Iterator

import pytest

from tests.browser.pages import SHOWN_MS, launch
from tests.compose.project import Project, run_example

pytestmark = [pytest.mark.docker, pytest.mark.browser, pytest.mark.timeout(600)]

TEXTS = "[...document.querySelectorAll('li')].map((message) => message.textContent)"


@pytest.fixture(scope="module")
def example() -> Iterator[Project]:
    with run_example("examples/chat", SECONDS_PER_WORD="0.05") as project:
        yield project


def test_reload_in_mid_answer_shows_the_whole_answer_once(example: Project, chromium: str) -> None:
    with launch(chromium) as browser, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(SHOWN_MS)
        page.goto(example.url)
        page.fill("input", "Why?")
        page.click("button")
        page.wait_for_function(f"{TEXTS}.join('').split(' ').length > 10")
        page.reload()
        page.wait_for_function(f"{TEXTS}.join('').endsWith('at its end.')")
        page.wait_for_selector("text=ready")
        saved = [message["parts"][0]["text"] for message in context.request.get(f"{page.url}/messages").json()]
        assert page.evaluate(TEXTS) == saved
        assert len(saved) == 2
    assert example.compose("logs", "--no-log-prefix", "chat").count("POST /api/chat ") == 1
