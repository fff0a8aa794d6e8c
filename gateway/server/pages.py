"""Serve the admin port's pages: static files without other hosts or a build step."""

from collections.abc import Mapping
from importlib import resources
from urllib.parse import urlsplit

from aiohttp import web

from ..http.problems import problem

_CONTENT_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def add_pages(app: web.Application, public_url: str | None, public_port: int) -> None:
    """Add the dashboard at `/`, the demo of resumable streams at `/demo`, and their files below `/pages/`.

    `public_url` is the public port's URL for browsers, by default the page's host with `public_port`.
    """
    files = {file.name: file.read_bytes() for file in resources.files("gateway").joinpath("server", "static").iterdir()}
    headers = {
        "Content-Security-Policy": _policy(""),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    demo_headers = headers | {"Content-Security-Policy": _policy(_origin(public_url) if public_url else f"*:{public_port}")}

    def send(name: str, headers: Mapping[str, str]) -> web.Response:
        return web.Response(body=files[name], content_type=_CONTENT_TYPES[name.rpartition(".")[2]], charset="utf-8", headers=headers)

    async def dashboard(_request: web.Request) -> web.Response:
        return send("dashboard.html", headers)

    async def demo(_request: web.Request) -> web.Response:
        return send("demo.html", demo_headers)

    async def file(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files or name.endswith(".html"):
            return problem(404, f"there is no file {name}; the pages are / and /demo")
        return send(name, headers)

    async def public_address(_request: web.Request) -> web.Response:
        return web.json_response({"public_url": public_url, "public_port": public_port}, headers={"Cache-Control": "no-store"})

    app.router.add_get("/", dashboard)
    app.router.add_get("/demo", demo)
    app.router.add_get("/pages/settings.json", public_address)
    app.router.add_get("/pages/{name}", file)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _policy(public: str) -> str:
    """Return a content security policy: load files from this origin, and connect to it and, unless empty, to `public`."""
    asked = f"'self' {public}".rstrip()
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
