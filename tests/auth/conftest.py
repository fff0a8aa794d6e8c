"""Fixtures: one gateway whose routes require credentials in all ways, its upstream and its issuer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.access import key_sets
from gateway.policy.secrets import digest_of
from tests.auth.issuer import Issuer
from tests.auth.signing import SECRET, public_pem
from tests.kit.downstream import Answer, Downstream, Fields, Head
from tests.kit.stack import ServiceProcess, free_ports, service_command
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Silence, chunk

QUICK_FETCHES = {
    f"{key_sets.__name__}.{name}": seconds for name, seconds in (("REFETCH_SECONDS", 0.1), ("MAX_AGE_SECONDS", 0.2), ("TIMEOUT_SECONDS", 1))
}
SHOP_KEY = "key-of-the-shop-0123456789"
NEWS_KEY = "key-of-the-news-0123456789"
FILE_KEY = "key-in-a-file-0123456789abc"
ISSUER, AUDIENCE = "https://issuer.example", "events"


def _routes(upstream: str, other: str, directory: Path, issuer: Issuer) -> list[dict[str, Any]]:
    def route(path: str, auth: Mapping[str, Any], **keys: object) -> dict[str, Any]:
        return {"path": path, "upstream": upstream, "heartbeat_seconds": 0} | keys | {"auth": auth}

    def tokens(**keys: object) -> dict[str, Any]:
        return {"kind": "jwt", "secret_env": "TOKEN_SECRET", "leeway_seconds": 0} | keys

    def jwks(name: str) -> dict[str, Any]:
        return {"kind": "jwt", "jwks_url": issuer.key_url(name).url}

    (directory / "shop.key").write_text(FILE_KEY + "\n")
    (directory / "issuer.pem").write_bytes(public_pem("RS256"))
    (directory / "secret").write_text(SECRET + "\n")
    keys = [
        {"name": "shop", "sha256": digest_of(SHOP_KEY)},
        {"name": "news", "key_env": "NEWS_KEY", "grants": {"read": ["news.>", "/keys/news/**"], "publish": ["news.today"]}},
        {"name": "shop", "key_file": str(directory / "shop.key")},
    ]
    every_way = {"cookie": "session", "cookie_origins": ["https://app.example"], "query_parameter": "access_token"}
    asked_all = tokens(**every_way)
    return [
        {"path": "/", "upstream": upstream, "heartbeat_seconds": 0},
        route("/keys", {"kind": "api-keys", "keys": keys, "query_parameter": "key", "subject_header": "X-Subject"}),
        route("/topics/", {"kind": "api-keys", "keys": keys}),
        route("/events", {"kind": "api-keys", "keys": keys}),
        route("/token", asked_all),
        route("/cors", tokens(cookie="session"), cors={"origins": ["https://page.example"], "credentials": True}),
        route("/shared", asked_all, mode="shared", initial="history", linger_seconds=0.1),
        route("/kept", asked_all, mode="resumable"),
        route("/kept-get", asked_all, mode="resumable", methods=["GET", "POST"]),
        route("/any", tokens(grants_claim="", secret_file=str(directory / "secret")) | {"secret_env": ""}),
        route("/subject", tokens(subject_header="X-Subject")),
        {"path": "/other", "upstream": other, "heartbeat_seconds": 0},
        route("/forward", tokens(forward=True, **every_way)),
        route("/pem", {"kind": "jwt", "public_key_file": str(directory / "issuer.pem"), "issuer": ISSUER, "audience": [AUDIENCE]}),
        route("/jwks/plain", jwks("plain")),
        route("/jwks/rotated", jwks("rotated")),
        route("/jwks/down", jwks("down")),
        route("/jwks/never", jwks("never")),
        route("/jwks/slow", jwks("slow")),
    ]


def table(route: Mapping[str, Any]) -> str:
    """Return one `[[routes]]` table."""
    lines = ["[[routes]]"]
    lines += [f"{name} = {_value(value)}" for name, value in route.items() if not isinstance(value, dict)]
    for name, keys in route.items():
        if isinstance(keys, dict):
            lines += [f"[routes.{name}]", *(f"{key} = {_value(value)}" for key, value in keys.items())]
    return "\n".join([*lines, ""])


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def problem(self) -> str:
        """The detail of an error."""
        assert self.head.value("Content-Type") == "application/problem+json"
        return str(json.loads(self.body)["detail"])


@dataclass
class World:
    """A gateway with its upstream and issuer."""

    gateway: ServiceProcess
    port: int
    upstream: ScriptedUpstream
    other: ScriptedUpstream
    """Upstream of the route `/other`, which gets no subject."""
    issuer: Issuer
    secrets: list[str] = field(default_factory=lambda: [SECRET, SHOP_KEY, NEWS_KEY, FILE_KEY])
    """Strings that must not appear in any log."""

    async def ask(self, target: str, *fields: tuple[str, str], method: str = "GET", body: bytes = b"") -> Reply:
        """Send a request and return its complete answer."""
        async with Downstream(self.port) as downstream:
            await downstream.ask(target, method, fields, body)
            answer = await downstream.answer(method)
            return Reply(answer.head, await answer.to_end(10))

    async def open(self, downstream: Downstream, target: str, fields: Fields = (), method: str = "GET", body: bytes = b"") -> Answer:
        """Request a stream and return the head of the answer."""
        await downstream.ask(target, method, fields, body)
        return await downstream.answer(method)

    def asked(self, path: str) -> list[Asked]:
        """Return the requests that reached the upstream for targets with this prefix."""
        return [asked for asked in self.upstream.requests if asked.target.startswith(path)]


def _script(asked: Asked) -> Script:
    """Return a stream of two events that stays open, for `/…/short` one that ends, and for other paths a few bytes."""
    path = asked.target.partition("?")[0]
    if asked.method == "HEAD":
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"]
    if "stream" in path or "/events" in path:
        return [EVENT_STREAM_HEAD, chunk(b"id: 1\ndata: one\n\n"), chunk(b"id: 2\ndata: two\n\n"), chunk(b"data: not whole"), Silence()]
    if "short" in path:
        return [EVENT_STREAM_HEAD, chunk(b"id: 1\ndata: one\n\n"), chunk(b"id: 2\ndata: two\n\n"), LAST_CHUNK]
    return [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"]


@contextlib.asynccontextmanager
async def started(
    directory: Path, routes: Sequence[Mapping[str, Any]], variables: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[tuple[ServiceProcess, int]]:
    """Run the gateway with settings and other variables. It must exit 0 without a stack trace in the log."""
    port, admin_port = free_ports(2)
    config, output = directory / "routes.toml", directory / "gateway.log"
    config.write_text("\n".join(map(table, routes)))
    environ: dict[str, object] = {"TOKEN_SECRET": SECRET, "NEWS_KEY": NEWS_KEY, "GATEWAY_LOG_LEVEL": "debug"} | dict(variables or {})
    environ |= {"GATEWAY_PORT": port, "GATEWAY_ADMIN_PORT": admin_port, "GATEWAY_CONFIG": config, "GATEWAY_DATA_DIR": directory / "data"}
    environ |= {"GATEWAY_DRAIN_SECONDS": 2} | {f"GATEWAY_{name.upper()}": value for name, value in settings.items()}
    command = service_command("gateway", constants=QUICK_FETCHES)
    gateway = ServiceProcess("gateway", admin_port, {name: str(value) for name, value in environ.items()}, output, command)
    try:
        gateway.start()
        await asyncio.to_thread(gateway.wait_until_ready)
        yield gateway, port
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "Traceback" not in output.read_text(), output.read_text()[-5000:]
    finally:
        if gateway.running:
            gateway.kill()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("auth")
    async with Issuer() as issuer, ScriptedUpstream(_script) as upstream, ScriptedUpstream(_script) as other:
        for name in ("plain", "rotated", "down", "slow"):
            issuer.key_url(name).publish("first")
        issuer.key_url("never").status = 500
        async with started(directory, _routes(upstream.url, other.url, directory, issuer)) as (gateway, port):
            yield World(gateway, port, upstream, other, issuer)
