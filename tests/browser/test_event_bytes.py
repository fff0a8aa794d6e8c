"""Chromium's EventSource gets the same events through the gateway and without it."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.page_server import serve
from tests.browser.pages import SHOWN_MS, launch
from tests.kit.stack import ServiceProcess, free_ports

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGE = b"""<!doctype html>
<meta charset="utf-8">
<title>reader</title>
<script>
  function read(url) {
    return new Promise((resolve) => {
      const events = [];
      const source = new EventSource(url);
      source.onmessage = (event) => { events.push([event.data, event.lastEventId]); };
      source.onerror = () => { source.close(); resolve(events); };
    });
  }

  function comeBack(urls, times) {
    return new Promise((resolve) => {
      const ends = urls.map(() => 0);
      const sources = urls.map((url, place) => {
        const source = new EventSource(url);
        source.onerror = () => {
          ends[place] += 1;
          if (ends[0] === times) { sources.forEach((each) => each.close()); resolve(ends); }
        };
        return source;
      });
    });
  }
</script>
"""
MARK = b"\xef\xbb\xbf"
STREAMS = {
    "mark": MARK + b"data: 1\n\ndata: 2\n\n",
    "two-marks": MARK + MARK + b"data: is not shown\n\ndata: 2\n\n",
    "mark-within": b"data: 1\n\n" + MARK + b"data: is not shown\ndata: 2\n\n",
    "done": b"data: 1\n\ndata: [DONE]\n",
    "single-line-ends": b"data: 1\ndata: 2\ndata: 3\n",
    "ids": b"id: 7\ndata: 1\n\ndata: 2\n\n",
}
ENDINGS = {"retry-line": b"data: 1\n\nretry: 50\n", "no-retry": b"data: 1\n\n"}
SILENCE_SECONDS = 1.0
"""The delay of a stream whose path asks for it: several heartbeats of the route `/silent`."""


class Upstream(BaseHTTPRequestHandler):
    """Serves the page, and the streams by the last part of the path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        stream = STREAMS.get(name) or ENDINGS.get(name)
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if stream is None else "text/event-stream")
        body = stream if stream is not None else PAGE
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.flush()
        if self.path.startswith("/silent/"):
            time.sleep(SILENCE_SECONDS)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: the default writes to stderr."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serve(Upstream) as origin:
        yield origin


@pytest.fixture(scope="module")
def gateway(origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("gateway")
    port, admin_port = free_ports(2)
    config = directory / "gateway.toml"
    routes = [
        ("/", 'mode = "direct"'),
        ("/silent", 'mode = "direct"\nheartbeat_seconds = 0.1'),
        ("/kept", 'mode = "resumable"\nmethods = ["GET"]'),
    ]
    config.write_text("\n".join(f'[[routes]]\npath = "{path}"\nupstream = "{origin}"\n{rest}\n' for path, rest in routes))
    environ = {"PORT": port, "ADMIN_PORT": admin_port, "CONFIG": config, "DATA_DIR": directory / "data", "DRAIN_SECONDS": 1}
    variables = {f"GATEWAY_{name}": str(value) for name, value in environ.items()}
    process = ServiceProcess("gateway", admin_port, variables, directory / "gateway.log")
    process.start()
    try:
        process.wait_until_ready()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


def read(browser: Browser, origin: str, path: str) -> Any:
    """Return the events of a stream, as a page of the same origin gets them."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(SHOWN_MS)
        page.goto(f"{origin}/page.html")
        return page.evaluate("path => read(path)", path)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("path", ["", "/silent"], ids=["at once", "after heartbeats"])
def test_event_source_gets_the_same_events_through_the_gateway(browser: Browser, origin: str, gateway: str, path: str, name: str) -> None:
    direct = read(browser, origin, f"/{name}")
    assert read(browser, gateway, f"{path}/{name}") == direct


@pytest.mark.parametrize("name", STREAMS)
def test_event_source_gets_the_same_data_of_a_kept_stream(browser: Browser, origin: str, gateway: str, name: str) -> None:
    direct = read(browser, origin, f"/{name}")
    kept = read(browser, gateway, f"/kept/{name}")
    assert [data for data, _ in kept] == [data for data, _ in direct]


def test_event_source_takes_its_reconnection_time_from_a_line_that_ends_no_block(browser: Browser, gateway: str) -> None:
    """The other EventSource, without a `retry`, reconnects after seconds."""
    with browser.new_context() as context:
        page: Page = context.new_page()
        page.set_default_timeout(SHOWN_MS)
        page.goto(f"{gateway}/page.html")
        told, untold = page.evaluate("([urls, times]) => comeBack(urls, times)", [["/retry-line", "/no-retry"], 8])
    assert told == 8
    assert untold <= 4
