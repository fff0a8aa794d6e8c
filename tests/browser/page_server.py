"""An HTTP server for the pages of a test and the JavaScript modules that they import."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@contextmanager
def serve_pages(pages: Mapping[str, str]) -> Iterator[str]:
    """Serve `pages` (path to text, the path ending in .html or .js) on a free port of 127.0.0.1 and yield its origin.

    A path without an extension is answered with the module of that name, as bundlers do with `import "./name"`.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path if self.path in pages else self.path + ".js"
            text = pages.get(path)
            self.send_response(404 if text is None else 200)
            body = (text or "").encode()
            self.send_header("Content-Type", _TYPES[path.rpartition(".")[2]])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: the default writes to stderr."""

    with serve(Handler) as origin:
        yield origin


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests by `handler`, each in a thread of its own, and yield the origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
