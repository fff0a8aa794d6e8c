"""The pages of the admin port: plain files, no other host, no build step."""

from importlib import resources
from urllib.parse import urlsplit

from aiohttp import web

from .problems import problem

_CONTENT_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def add_pages(app: web.Application, public_url: str | None, public_port: int) -> None:
    """Adds `/demo`, which shows that a stream survives its connection, and what it needs below `/pages/`.

    `public_url` is where browsers reach the public port; without it they take the page's host, at `public_port`.
    """
    files = {file.name: file.read_bytes() for file in resources.files("gateway").joinpath("static").iterdir()}
    headers = {
        "Content-Security-Policy": _policy(_origin(public_url) if public_url else f"*:{public_port}"),
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }

    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "demo.html")
        if name not in files:
            return problem(404, f"there is no page {name}; /demo is one")
        return web.Response(body=files[name], content_type=_CONTENT_TYPES[name.rpartition(".")[2]], charset="utf-8", headers=headers)

    async def public_address(_request: web.Request) -> web.Response:
        return web.json_response({"public_url": public_url, "public_port": public_port}, headers={"Cache-Control": "no-store"})

    app.router.add_get("/demo", page)
    app.router.add_get("/pages/settings.json", public_address)
    app.router.add_get("/pages/{name}", page)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _policy(public: str) -> str:
    """Gives a content security policy that lets a page load what is here, and ask here and at `public`."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        f"connect-src 'self' {public}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
