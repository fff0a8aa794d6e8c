"""A browser, and the page with which it subscribes and publishes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

SHOWN_MS = 60_000
"""The most milliseconds until a page shows the expected state; only a defect reaches it."""
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOPIC_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>subscriber and publisher</title>
<script>
  window.events = [];
  window.state = "idle";
  window.errors = 0;

  function subscribe(url) {
    const source = new EventSource(url);
    source.onopen = () => { window.state = "open"; };
    source.onmessage = (event) => { events.push([event.lastEventId, event.data]); };
    source.addEventListener("gap", (event) => { events.push(["gap", event.data]); });
    source.onerror = () => { window.errors += 1; window.state = source.readyState === EventSource.CLOSED ? "failed" : "reconnecting"; };
  }

  async function publish(url, key, name, body) {
    try {
      const headers = { "Authorization": `Bearer ${key}`, "Content-Type": "application/json", "Idempotency-Key": name };
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
      return [answer.status, await answer.json()];
    } catch (error) {
      return [0, String(error)];
    }
  }
</script>
"""


@contextmanager
def launch(chromium: str) -> Iterator[Browser]:
    """Run the browser of this path; expectations of a page time out after SHOWN_MS."""
    expect.set_options(timeout=SHOWN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS, timeout=120_000)
        yield browser
        browser.close()


def publish(page: Page, url: str, key: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Publish from within the page. Return status and JSON, or 0 and the error when the browser withheld the answer from the page."""
    status, answer = page.evaluate("([url, key, name, body]) => publish(url, key, name, body)", [url, key, name, body])
    return status, answer


def subscribe(page: Page, url: str) -> None:
    """Make the page subscribe, and return when the stream is open."""
    page.evaluate("url => subscribe(url)", url)
    page.wait_for_function("state === 'open' || state === 'failed'")
    assert page.evaluate("state") == "open"


def wait_for_event(page: Page, id: str) -> None:
    """Return when the page has the event with this ID. Raises AssertionError when its EventSource failed before."""
    page.wait_for_function("id => events.some(([known]) => known === id) || state === 'failed'", arg=id)
    assert page.evaluate("state") != "failed"


def received(page: Page) -> list[tuple[str, str]]:
    """Return ID and data of each event that the page received, in order."""
    return [(id, data) for id, data in json.loads(page.evaluate("JSON.stringify(events)"))]
