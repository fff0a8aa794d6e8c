"""No page that an operator's browser has open gets anything from the admin port, whatever name it is made to be called by."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.observe.dashboard.tail import STOP_PATH
from gateway.policy.admin_hosts import AdminHosts
from gateway.server.admin_guard import admin_application
from tests.kit.stack import REPOSITORY

NAMES = AdminHosts.parse("gateway.example.org, *.inside.example.com")

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def admin() -> AsyncIterator[Client]:
    """Start an admin port with `/thing`, which can be read and changed."""

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="secret")

    app = admin_application(AdminHosts())
    app.router.add_get("/thing", answer)
    app.router.add_post("/thing", answer)
    app.router.add_post(STOP_PATH, answer)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8081",
        "10.1.2.3",
        "[::1]:8081",
        "[2001:db8::1]",
        "localhost:8081",
        "LOCALHOST.",
        "gateway.localhost",
        "gateway:8081",
        "my_gateway",
        "Gateway.Example.Org:8081",
        "gateway.example.org.",
        "a.inside.example.com",
        "a.b.inside.example.com:80",
        "",
    ],
)
def test_address_or_name_that_no_stranger_can_own_is_allowed(host: str) -> None:
    assert NAMES.allow(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8081",
        "evil.example.",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost.example",
        "xgateway.example.org",
        "x.gateway.example.org",
        "inside.example.com",
        "127.0.0.1@evil.example",
        "[evil.example]",
        "ev\u00efl.example",
        "256.0.0.1",
        "a b",
    ],
)
def test_any_other_name_is_not_allowed(host: str) -> None:
    assert not NAMES.allow(host)


async def test_request_by_another_name_is_refused_with_advice() -> None:
    async with admin() as client:
        for path in ("/thing", "/none"):
            async with client.get(path, headers={"Host": "evil.example:8081"}) as answer:
                assert (answer.status, answer.content_type) == (421, "application/problem+json")
                detail = (await answer.json(content_type=None))["detail"]
            assert detail.startswith("the host name 'evil.example:8081' is not allowed")
            for word in ("IP addresses", "localhost", "without dots", "GATEWAY_ADMIN_HOSTS"):
                assert word in detail


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8081", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_pages_cannot_change_anything_and_other_clients_can(fields: dict[str, str]) -> None:
    async with admin() as client:
        async with client.post("/thing", headers=fields) as refused:
            assert (refused.status, refused.content_type) == (403, "application/problem+json")
            assert "use curl" in (await refused.json(content_type=None))["detail"]
        async with client.get("/thing", headers=fields) as answer:
            assert answer.status == 200, "reading is left to the browser, which lets pages of other origins have nothing"
            assert "Access-Control-Allow-Origin" not in answer.headers
        for own in ({}, {"Sec-Fetch-Site": "none"}):
            async with client.post("/thing", headers=own) as answer:
                assert answer.status == 200


async def status_of(client: Client, method: str, path: str, **fields: str) -> int:
    async with client.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()}) as answer:
        return answer.status


@pytest.mark.parametrize("host", ["127.0.0.1:8081", "LocalHost:8081", "gateway", "[::1]:8081"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_own_page_may_stop_an_answer_and_change_nothing_else(host: str, scheme: str) -> None:
    own = {"Host": host, "Origin": f"{scheme}://{host}".lower(), "Sec_Fetch_Site": "same-origin"}
    async with admin() as client:
        assert await status_of(client, "POST", "/dashboard/stop/0-1", **own) == 200
        for method, path in (
            ("POST", "/thing"),
            ("POST", "/dashboard/stop/0-1/"),
            ("POST", "/dashboard/stop/x"),
            ("POST", "/workers/0/dashboard/stop/0-1"),
            ("DELETE", "/dashboard/stop/0-1"),
            ("PUT", "/dashboard/stop/0-1"),
        ):
            assert await status_of(client, method, path, **own) == 403, (method, path)


OWN = {"Host": "127.0.0.1:8081", "Origin": "http://127.0.0.1:8081", "Sec_Fetch_Site": "same-origin"}


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://127.0.0.1:8081.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "none"}, 403),
        ({"Sec_Fetch_Site": ""}, 403),
        ({"Sec_Fetch_Site": "same-origin, same-origin"}, 403),
        ({"Host": "localhost:8081"}, 403),
        ({"Host": "", "Origin": "http://"}, 403),
        ({"Host": "evil.example:8081", "Origin": "http://evil.example:8081"}, 421),
    ],
)
async def test_other_page_may_stop_nothing(other: dict[str, str], status: int) -> None:
    async with admin() as client:
        assert await status_of(client, "POST", "/dashboard/stop/0-1", **OWN) == 200
        assert await status_of(client, "POST", "/dashboard/stop/0-1", **OWN | other) == status


async def test_page_of_a_browser_without_fetch_metadata_may_stop_nothing() -> None:
    async with admin() as client:
        assert await status_of(client, "POST", "/dashboard/stop/0-1", Host=OWN["Host"], Origin=OWN["Origin"]) == 403
        assert await status_of(client, "POST", "/dashboard/stop/0-1", Host=OWN["Host"], Sec_Fetch_Site="same-origin") == 403
        assert await status_of(client, "POST", "/dashboard/stop/0-1") == 200, "curl is no page"


@pytest.mark.parametrize("name", ["http://gateway.example.org", "gateway.example.org:8081", "*", "*.", "a b", "gätt.example", "-", "a..*"])
def test_invalid_host_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be host names such as gateway"):
        AdminHosts.parse(f"fine.example.org,{name}")


def test_hosts_of_prometheus_in_compose_and_of_kubernetes_need_no_setting() -> None:
    asked = yaml.safe_load((REPOSITORY / "deploy/metrics/prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in asked for config in job["static_configs"] for target in config["targets"]]
    assert "gateway:8081" in targets
    assert [target for target in (*targets, "10.244.0.7:8081", "[fd00::7]:8081") if not AdminHosts().allow(target)] == []
