"""How an EventSource in Chromium handles routes that require a token: in the URL, in a cookie, and when it has expired."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.auth.signing import SECRET, hs_token
from tests.browser.page_server import serve, serve_pages
from tests.browser.pages import launch
from tests.kit.stack import ServiceProcess, free_ports

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>subscriber with a token</title>
<script>
  window.states = [];

  function listen(url) {
    const source = new EventSource(url, { withCredentials: true });
    const note = (state) => { if (states.at(-1) !== state) states.push(state); };
    source.onmessage = (event) => note(event.data);
    source.onerror = () => note(source.readyState === EventSource.CLOSED ? "closed" : "connecting");
  }
</script>
"""
CONFIG = """
[[routes]]
path = "/"
upstream = "{upstream}"

[[routes]]
path = "/stream"
upstream = "{upstream}"
[routes.auth]
kind = "jwt"
secret_env = "TOKEN_SECRET"
leeway_seconds = 0
query_parameter = "token"
cookie = "session"
"""


@dataclass(frozen=True)
class Gateway:
    """A running gateway."""

    url: str
    process: ServiceProcess


@contextmanager
def serving() -> Iterator[str]:
    """Serve the page, and streams that continue until the client disconnects; yield the URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stream = self.path.startswith("/stream")
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if stream else "text/html")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"retry: 50\ndata: event\n\n" if stream else PAGE.encode())
            if stream:
                over.wait(60)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Log nothing: the default writes to stderr."""

    with serve(Handler) as origin:
        try:
            yield origin
        finally:
            over.set()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory: Path = tmp_path_factory.mktemp("auth")
    port, admin_port = free_ports(2)
    config = directory / "routes.toml"
    with serving() as upstream:
        config.write_text(CONFIG.format(upstream=upstream))
        environ = {"GATEWAY_PORT": str(port), "GATEWAY_ADMIN_PORT": str(admin_port), "GATEWAY_CONFIG": str(config), "TOKEN_SECRET": SECRET}
        process = ServiceProcess("gateway", admin_port, environ | {"GATEWAY_DRAIN_SECONDS": "1"}, directory / "log")
        process.start()
        try:
            process.wait_until_ready()
            yield Gateway(f"http://127.0.0.1:{port}", process)
        finally:
            process.stop()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, gateway: Gateway) -> Iterator[Page]:
    """Open a page of the gateway's own origin."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{gateway.url}/page")
        yield page


def reach(page: Page, *states: str) -> None:
    """Return when the page has recorded these states, one after the other."""
    page.wait_for_function("states => JSON.stringify(window.states) === JSON.stringify(states)", arg=list(states))


def test_event_source_fails_when_its_token_has_expired(page: Page) -> None:
    page.evaluate("listen", f"/stream?token={hs_token(exp=int(time.time()) + 4)}")
    reach(page, "event", "connecting", "closed")


def test_event_source_without_a_token_fails_at_once(page: Page) -> None:
    page.evaluate("listen", "/stream")
    reach(page, "closed")


def test_cookie_authorizes_only_pages_of_the_same_origin(page: Page, gateway: Gateway) -> None:
    page.context.add_cookies([{"name": "session", "value": hs_token(), "url": gateway.url, "sameSite": "Lax"}])
    page.evaluate("listen", "/stream")
    reach(page, "event")
    with serve_pages({"/page.html": PAGE}) as origin:  # another port is another origin on the same site, so that the cookie is sent
        page.goto(f"{origin}/page.html")
        page.evaluate("listen", f"{gateway.url}/stream")
        reach(page, "closed")
    assert gateway.process.metric("gateway_rejected_total", reason="origin", status="403") == 1
