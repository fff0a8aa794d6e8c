"""Chromium lets only pages of the origins in a route's table `cors` use the route."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.page_server import serve_pages
from tests.browser.pages import launch
from tests.kit.stack import ServiceProcess, free_ports

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>page of another origin</title>
<script>
  document.cookie = "who=alice";

  function listen(url) {
    return new Promise((resolve) => {
      const source = new EventSource(url, { withCredentials: true });
      source.onmessage = (event) => { source.close(); resolve(event.data); };
      source.onerror = () => { source.close(); resolve("failed"); };
    });
  }

  async function ask(url, method, headers, names) {
    try {
      const answer = await fetch(url, { method, headers, credentials: "include" });
      const text = await answer.text();
      return { status: answer.status, text, fields: Object.fromEntries(names.map((name) => [name, answer.headers.get(name)])) };
    } catch (error) {
      return { status: 0, text: String(error), fields: {} };
    }
  }
</script>
"""
CONFIG = """
[[routes]]
path = "/"
upstream = "{upstream}"
[routes.cors]
origins = ["{origin}"]
credentials = true

[[routes]]
path = "/ask"
upstream = "{upstream}"
mode = "resumable"
[routes.cors]
origins = ["{origin}"]
credentials = true

[[routes]]
path = "/open"
upstream = "{upstream}"
[routes.cors]
origins = ["*"]
"""


@contextmanager
def answering_without_cors() -> Iterator[tuple[str, list[str]]]:
    """Serve without CORS and echo who the client is; yield the URL and the list of requested methods."""
    methods: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            methods.append(self.command)
            if self.path == "/missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(f"data: {self.headers.get('Cookie')}\n\n".encode())

        do_POST = do_PUT = do_OPTIONS = do_GET

        def log_message(self, *_: object) -> None:
            """Log nothing: the default writes to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", methods
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[str, list[str]]]:
    with answering_without_cors() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serve_pages({"/page.html": PAGE}) as origin:
        yield origin


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    with serve_pages({"/page.html": PAGE}) as origin:
        yield origin


@pytest.fixture(scope="module")
def gateway(upstream: tuple[str, list[str]], origin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the gateway's public URL."""
    directory: Path = tmp_path_factory.mktemp("cors")
    port, admin_port = free_ports(2)
    (directory / "routes.toml").write_text(CONFIG.format(upstream=upstream[0], origin=origin))
    environ = {"PORT": port, "ADMIN_PORT": admin_port, "CONFIG": directory / "routes.toml", "DATA_DIR": directory / "data"}
    settings = {f"GATEWAY_{name}": str(value) for name, value in environ.items()}
    process = ServiceProcess("gateway", admin_port, settings, directory / "gateway.log")
    process.start()
    try:
        process.wait_until_ready()
        yield f"http://127.0.0.1:{port}"
        assert process.stop() == 0
    finally:
        if process.running:
            process.kill()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with launch(chromium) as browser:
        yield browser


@contextmanager
def opened(browser: Browser, origin: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(origin + "/page.html")
        yield page


def listen(page: Page, url: str) -> str:
    return str(page.evaluate("url => listen(url)", url))


def ask(page: Page, url: str, method: str, headers: dict[str, str], *names: str) -> tuple[int, str, dict[str, str]]:
    """Return status, text and these header fields, as far as the page may read them; status 0 when it may read nothing."""
    answer = page.evaluate("([url, method, headers, names]) => ask(url, method, headers, names)", [url, method, headers, list(names)])
    return answer["status"], answer["text"], answer["fields"]


def test_allowed_page_gets_streams_with_its_cookie_and_reads_errors(browser: Browser, gateway: str, origin: str) -> None:
    with opened(browser, origin) as page:
        assert listen(page, gateway + "/events") == "who=alice"
        status, text, _ = ask(page, gateway + "/events", "PUT", {"Authorization": "Bearer x", "Last-Event-ID": "7"})
        assert (status, text) == (200, "data: who=alice\n\n")
        assert ask(page, gateway + "/missing", "GET", {})[0] == 404


def test_allowed_page_resumes_a_kept_stream_and_stops_it(browser: Browser, gateway: str, origin: str) -> None:
    with opened(browser, origin) as page:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "a"}
        status, _, fields = ask(page, gateway + "/ask", "POST", headers, "Stream-Id", "X-Request-Id")
        assert status == 200
        assert all(fields.values())
        stream = f"{gateway}/streams/{fields['Stream-Id']}"
        assert listen(page, stream) == "who=alice"
        status, _, fields = ask(page, stream, "DELETE", {}, "Stream-State", "Stream-Blocks")
        assert (status, fields) == (204, {"Stream-State": "complete", "Stream-Blocks": "1"})
        assert ask(page, f"{gateway}/streams/{'0' * 32}", "DELETE", {})[0] == 404


def test_forbidden_page_gets_nothing_and_its_preflights_do_not_reach_the_upstream(
    browser: Browser, gateway: str, stranger: str, upstream: tuple[str, list[str]]
) -> None:
    with opened(browser, stranger) as page:
        assert listen(page, gateway + "/events") == "failed"
        assert ask(page, gateway + "/events", "GET", {})[0] == 0
        assert ask(page, gateway + "/events", "PUT", {"X-Request-Id": "stranger"})[0] == 0
        assert "OPTIONS" not in upstream[1]


def test_any_page_may_use_an_open_route_but_not_with_cookies(browser: Browser, gateway: str, stranger: str) -> None:
    with opened(browser, stranger) as page:
        assert ask(page, gateway + "/open", "GET", {})[0] == 0
        assert page.evaluate("url => fetch(url).then((answer) => answer.text())", gateway + "/open") == "data: None\n\n"
