"""A browser, and the page with which it subscribes and publishes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

SHOWN_MS = 60_000
"""How long a page may take to show what it should; only a defect reaches it."""
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
    """Runs the browser of this path; what is expected of a page is waited for as long as SHOWN_MS."""
    expect.set_options(timeout=SHOWN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS, timeout=120_000)
        yield browser
        browser.close()


def publish(page: Page, url: str, key: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Publishes from within the page; gives status and JSON, or 0 and the error when the browser did not let the page have an answer."""
    status, answer = page.evaluate("([url, key, name, body]) => publish(url, key, name, body)", [url, key, name, body])
    return status, answer


def subscribe(page: Page, url: str) -> None:
    """Makes the page subscribe, and returns when the stream is open."""
    page.evaluate("url => subscribe(url)", url)
    page.wait_for_function("state === 'open' || state === 'failed'")
    assert page.evaluate("state") == "open"


def wait_for_event(page: Page, id: str) -> None:
    """Returns when the page has got the event with this ID. Raises AssertionError when its EventSource gave up before."""
    page.wait_for_function("id => events.some(([known]) => known === id) || state === 'failed'", arg=id)
    assert page.evaluate("state") != "failed"


def received(page: Page) -> list[tuple[str, str]]:
    """ID and data of each event that the page has got, in order."""
    return [(id, data) for id, data in json.loads(page.evaluate("JSON.stringify(events)"))]
