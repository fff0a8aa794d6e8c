"""A chat page that prompts a model, and follows answers to other pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

from tests.browser.pages import BROWSER_FLAGS

CHAT_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>chat</title>
<script>
  window.state = "idle";
  window.openings = [];
  window.losses = 0;
  window.events = [];
  window.raw = "";

  async function fetchNoting(...request) {
    const response = await fetch(...request);
    const decoder = new TextDecoder();
    const noting = new TransformStream({
      transform(bytes, onwards) {
        raw += decoder.decode(bytes, { stream: true });
        onwards.enqueue(bytes);
      },
    });
    return new Response(response.body.pipeThrough(noting), response);
  }

  async function ask(url, body, fields) {
    const { fetchEventSource } = await import("/fetch-event-source/index");
    window.state = "asking";
    try {
      await fetchEventSource(url, {
        method: "POST",
        headers: { "Content-Type": "application/json", ...fields },
        body: JSON.stringify(body),
        openWhenHidden: true,
        fetch: fetchNoting,
        async onopen(response) {
          openings.push([response.status, response.headers.get("Stream-Id")]);
          if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
        },
        onmessage(event) { events.push([event.id, event.data]); },
        onerror(error) {
          losses += 1;
          if (losses > 5) throw error;
        },
      });
      window.state = "ended";
    } catch (error) {
      window.state = `failed: ${error}`;
    }
  }

  function follow(url) {
    const source = new EventSource(url);
    window.state = "asking";
    source.onopen = () => { openings.push([200, null]); };
    source.onmessage = (event) => { events.push([event.lastEventId, event.data]); };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) window.state = "ended";
      else losses += 1;
    };
  }

  function text() {  // of a chat completion
    const chunks = events.map(([, data]) => data).filter((data) => data !== "[DONE]").map((data) => JSON.parse(data));
    return chunks.flatMap((chunk) => chunk.choices).map((choice) => choice.delta.content ?? "").join("");
  }
</script>
"""


@asynccontextmanager
async def launch(chromium: str) -> AsyncIterator[Browser]:
    """Run the browser at this path."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=BROWSER_FLAGS, timeout=120_000)
        yield browser
        await browser.close()


@asynccontextmanager
async def chat_page(browser: Browser, origin: str) -> AsyncIterator[Page]:
    """Open the page, which must be at /page.html of `origin`."""
    async with await browser.new_context() as context:
        context.set_default_timeout(60_000)
        page = await context.new_page()
        await page.goto(origin + "/page.html")
        yield page


async def shows(page: Page, text: str) -> None:
    """Wait until the page shows exactly this. Raises AssertionError if its answer ends differently."""
    await page.wait_for_function("expected => text() === expected || !['idle', 'asking'].includes(state)", arg=text)
    assert await page.evaluate("text()") == text


async def ends(page: Page) -> None:
    """Wait until the answer has ended for the page without an error."""
    await page.wait_for_function("!['idle', 'asking'].includes(state)")
    assert await page.evaluate("state") == "ended"
