"""The pages of the admin port: what they are, and what they may reach."""

import json
import re

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.server.pages import add_pages

SCRIPTS = ("chart", "dashboard", "demo", "elements", "format", "tail")
PAGES = (
    {"/": "text/html; charset=utf-8", "/demo": "text/html; charset=utf-8"}
    | {f"/pages/{name}.js": "text/javascript; charset=utf-8" for name in SCRIPTS}
    | {f"/pages/{name}.css": "text/css; charset=utf-8" for name in ("pages", "dashboard")}
)


def serve(public_url: str | None = None) -> "TestClient[web.Request, web.Application]":
    app = web.Application()
    add_pages(app, public_url, 8080)
    return TestClient(TestServer(app))


def policy(answer: aiohttp.ClientResponse) -> dict[str, list[str]]:
    """Return the sources of each directive of the content security policy."""
    directives = [directive.split() for directive in answer.headers["Content-Security-Policy"].split(";")]
    return {name: sources for name, *sources in directives}


@pytest.mark.parametrize(("path", "content_type"), PAGES.items())
async def test_page_has_its_content_type_and_is_asked_for_anew(path: str, content_type: str) -> None:
    async with serve() as client, client.get(path) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, content_type)
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert len(await answer.read()) > 100


@pytest.mark.parametrize("path", PAGES)
async def test_page_may_load_only_own_files_and_not_be_framed(path: str) -> None:
    public = ["*:8080"] if path == "/demo" else []
    async with serve() as client, client.get(path) as answer:
        assert policy(answer) == {
            "default-src": ["'none'"],
            "script-src": ["'self'"],
            "style-src": ["'self'"],
            "img-src": ["data:"],
            "connect-src": ["'self'", *public],
            "base-uri": ["'none'"],
            "form-action": ["'none'"],
            "frame-ancestors": ["'none'"],
        }


@pytest.mark.parametrize(
    ("public_url", "source"), [("https://events.example", "https://events.example"), ("http://host:81/prefix", "http://host:81")]
)
async def test_page_may_ask_only_where_the_public_port_is_said_to_be(public_url: str, source: str) -> None:
    async with serve(public_url) as client, client.get("/demo") as answer:
        assert policy(answer)["connect-src"] == ["'self'", source]


@pytest.mark.parametrize("public_url", [None, "https://events.example"])
async def test_page_is_told_where_the_public_port_is(public_url: str | None) -> None:
    async with serve(public_url) as client, client.get("/pages/settings.json") as answer:
        assert json.loads(await answer.text()) == {"public_url": public_url, "public_port": 8080}
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/pages/", "/pages/nothing.html", "/pages/demo.html", "/pages/..%2Fpages.py", "/pages/%2Fetc%2Fpasswd", "/pages/demo.html/"]
)
async def test_unknown_page_is_not_found(path: str) -> None:
    async with serve() as client, client.get(path) as answer:
        assert answer.status == 404


async def test_not_found_says_which_page_there_is() -> None:
    async with serve() as client, client.get("/pages/demos") as answer:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (await answer.json(content_type=None))["detail"] == "there is no file demos; the pages are / and /demo"


async def test_every_address_in_the_pages_is_relative() -> None:
    async with serve() as client:
        for path in PAGES:
            async with client.get(path) as answer:
                text = (await answer.text()).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
            assert re.findall(r"(?:src|href)=\"(?!pages/|data:|demo\"|metrics\")[^\"]*\"", text) == [], path
            assert re.findall(r"https?://\w+|url\(|@import|//\w+\.\w+/", text) == [], path
