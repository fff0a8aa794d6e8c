"""The pages of the admin port: plain files, no other host, no build step."""

from importlib import resources

from aiohttp import web

from .settings import Settings

_CONTENT_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def add_pages(app: web.Application, settings: Settings) -> None:
    """Adds `/demo`, which shows that a stream survives its connection, and what it needs below `/pages/`."""
    headers = {
        "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; connect-src *; frame-ancestors 'none'",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    files = {file.name: file.read_bytes() for file in resources.files("gateway").joinpath("static").iterdir()}

    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "demo.html")
        if name not in files:
            raise web.HTTPNotFound(text=f"there is no page {name}")
        return web.Response(body=files[name], content_type=_CONTENT_TYPES[name.rpartition(".")[2]], charset="utf-8", headers=headers)

    async def public_address(_request: web.Request) -> web.Response:
        return web.json_response({"public_url": settings.public_url, "public_port": settings.port}, headers={"Cache-Control": "no-store"})

    app.router.add_get("/demo", page)
    app.router.add_get("/pages/settings.json", public_address)
    app.router.add_get("/pages/{name}", page)
