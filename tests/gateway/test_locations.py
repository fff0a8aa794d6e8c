"""An upstream that names its own address in an answer does not lead its clients past the gateway."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.downstream import Downstream, Fields, Head
from tests.kit.gateway import serving
from tests.kit.upstream import EVENT_STREAM_HEAD, Asked, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

ASKED = "http://gateway.example:8080"
TRUSTED = {"trusted_proxies": "127.0.0.1"}


@asynccontextmanager
async def gateway(tmp_path: Path, path: str = "", settings: dict[str, Any] | None = None, **keys: object) -> AsyncIterator["Gateway"]:
    """Routes everything to an upstream whose address ends in `path`."""
    gateway = Gateway()
    async with ScriptedUpstream(gateway.script) as upstream, asyncio.timeout(GUARD_SECONDS):
        gateway.upstream = upstream
        routes = [{"path": "/", "upstream": upstream.url + path} | keys]
        async with serving(routes, tmp_path, **(settings or {})) as gateway.port:
            yield gateway


class Gateway:
    port: int
    upstream: ScriptedUpstream
    fields: Fields = ()
    head = b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n\r\n"

    def script(self, _: Asked) -> Script:
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.fields).encode()
        head = self.head.removesuffix(b"\r\n") + lines + b"\r\n"
        return [head, chunk(b"data: x\n\n"), Silence()] if self.head is EVENT_STREAM_HEAD else [head]

    async def ask(self, answered: Fields, fields: Fields = (), *, host: str = "gateway.example:8080", method: str = "GET") -> Head:
        """Send a request with `fields`, which the upstream answers with `answered`."""
        self.fields = [(name, value.replace("UPSTREAM", f"127.0.0.1:{self.upstream.port}")) for name, value in answered]
        async with Downstream(self.port) as downstream:
            lines = "".join(f"{name}: {value}\r\n" for name, value in [("Host", host), ("Accept", "text/event-stream"), *fields] if value)
            await downstream.send(f"{method} /v1/x HTTP/1.1\r\n{lines}\r\n".encode())
            return (await downstream.answer(method)).head


MOVED = [
    ("http://UPSTREAM/v1/y?a=b#c", f"{ASKED}/v1/y?a=b#c"),
    ("HTTP://UPSTREAM/v1/y", f"{ASKED}/v1/y"),
    ("http://UPSTREAM", ASKED),
    ("http://UPSTREAM?q=http://UPSTREAM/", f"{ASKED}?q=http://UPSTREAM/"),
    ("//UPSTREAM/v1/y", f"{ASKED}/v1/y"),
    ("https://UPSTREAM/v1/y", f"{ASKED}/v1/y"),
]
KEPT = [
    "/v1/y",
    "y",
    "",
    "?q",
    "http://127.0.0.1/v1/y",
    "http://127.0.0.1:1/v1/y",
    "http://user@UPSTREAM/v1/y",
    "http://UPSTREAM.example/",
    "http://UPSTREAM0/",
    "http://elsewhere.example/?next=http://UPSTREAM/",
    "urn:http://UPSTREAM/",
    "ftp://UPSTREAM/",
    "http://[::1",
]


async def test_address_of_the_upstream_becomes_the_one_that_the_client_asked(tmp_path: Path) -> None:
    async with gateway(tmp_path) as line:
        for name in ("Location", "Content-Location"):
            for told, given in MOVED:
                head = await line.ask([(name, told)])
                assert head.values(name) == [given.replace("UPSTREAM", f"127.0.0.1:{line.upstream.port}")]


async def test_every_other_address_passes_as_it_came(tmp_path: Path) -> None:
    async with gateway(tmp_path) as line:
        for told in KEPT:
            head = await line.ask([("Location", told)])
            assert head.values("Location") == [told.replace("UPSTREAM", f"127.0.0.1:{line.upstream.port}")]


@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("0;url=http://UPSTREAM/y", f"0;url={ASKED}/y"),
        ('5; URL="http://UPSTREAM/y"', f'5; URL="{ASKED}/y"'),
        ("1.5, http://UPSTREAM/y", f"1.5, {ASKED}/y"),
        ("5", "5"),
        ("5; url=/y", "5; url=/y"),
    ],
)
async def test_address_behind_the_delay_of_refresh_is_rewritten(tmp_path: Path, told: str, given: str) -> None:
    async with gateway(tmp_path) as line:
        assert (await line.ask([("Refresh", told)])).value("Refresh") == given


@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("http://UPSTREAM/openai/v1/y", f"{ASKED}/v1/y"),
        ("http://UPSTREAM/openai", ASKED),
        ("http://UPSTREAM/openai?q", f"{ASKED}?q"),
        ("http://UPSTREAM/openair", "http://UPSTREAM/openair"),
        ("http://UPSTREAM/v1/y", "http://UPSTREAM/v1/y"),
    ],
)
async def test_path_of_the_upstreams_address_is_taken_off(tmp_path: Path, told: str, given: str) -> None:
    async with gateway(tmp_path, "/openai") as line:
        head = await line.ask([("Location", told)])
        assert head.value("Location") == given.replace("UPSTREAM", f"127.0.0.1:{line.upstream.port}")


@pytest.mark.parametrize(("settings", "origin"), [(TRUSTED, "https://api.example"), ({}, ASKED)], ids=["trusted proxy", "anybody else"])
async def test_proxy_in_front_says_by_which_address_the_client_asked(tmp_path: Path, settings: dict[str, Any], origin: str) -> None:
    forwarded = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "api.example"), ("X-Forwarded-For", "192.0.2.7")]
    async with gateway(tmp_path, settings=settings) as line:
        head = await line.ask([("Location", "http://UPSTREAM/y")], forwarded)
        assert head.value("Location") == f"{origin}/y"


async def test_client_that_names_no_host_gets_a_path(tmp_path: Path) -> None:
    async with gateway(tmp_path) as line, Downstream(line.port) as downstream:
        line.fields = [("Location", f"{line.upstream.url}/y?z")]
        await downstream.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await downstream.answer()).head.value("Location") == "/y?z"


async def test_address_by_which_a_rule_has_named_the_upstream_is_rewritten(tmp_path: Path) -> None:
    async with gateway(tmp_path, request_headers={"Host": "model.internal"}) as line:
        assert (await line.ask([("Location", "http://model.internal/y")])).value("Location") == f"{ASKED}/y"


@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("http://api.example/y", "https://api.example/y"),
        ("https://api.example/y", "https://api.example/y"),
        ("http://UPSTREAM/y", "https://api.example/y"),
    ],
)
async def test_upstream_gets_the_clients_host_where_the_route_says_so(tmp_path: Path, told: str, given: str) -> None:
    async with gateway(tmp_path, settings=TRUSTED, preserve_host=True) as line:
        head = await line.ask([("Location", told)], [("X-Forwarded-Proto", "https")], host="api.example")
        assert line.upstream.requests[0].header("Host") == "api.example"
        assert head.value("Location") == given


async def test_upstream_gets_its_own_host_otherwise(tmp_path: Path) -> None:
    async with gateway(tmp_path) as line:
        await line.ask([])
        assert line.upstream.requests[0].header("Host") == f"127.0.0.1:{line.upstream.port}"


@pytest.mark.parametrize(("keys", "method"), [({"mode": "shared"}, "GET"), ({"mode": "resumable"}, "POST")], ids=["shared", "resumable"])
async def test_event_stream_names_no_address_of_the_upstream(tmp_path: Path, keys: dict[str, object], method: str) -> None:
    async with gateway(tmp_path, **keys) as line:
        line.head = EVENT_STREAM_HEAD
        for host in ("a.example", "b.example"):
            fields = [("Idempotency-Key", "same"), ("Content-Length", "0")] if method == "POST" else []
            head = await line.ask([("Content-Location", "http://UPSTREAM/y")], fields, host=host, method=method)
            assert (head.status, head.value("Content-Location")) == (200, f"http://{host}/y")
        assert len(line.upstream.requests) == 1


async def test_clients_share_a_stream_by_the_host_that_the_upstream_sees(tmp_path: Path) -> None:
    async with gateway(tmp_path, mode="shared", preserve_host=True) as line:
        line.head = EVENT_STREAM_HEAD
        for host in ("a.example", "b.example", "a.example"):
            assert (await line.ask([], host=host)).status == 200
        assert [asked.header("Host") for asked in line.upstream.requests] == ["a.example", "b.example"]
