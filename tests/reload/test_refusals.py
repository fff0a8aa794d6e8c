"""Test that a failed reload changes nothing and gives the reason, and that web pages cannot reload."""

from pathlib import Path

import pytest

from gateway.policy.route_table import RouteError
from tests.kit.reloading import reloading, resumable, route, shared
from tests.kit.upstream import ScriptedUpstream
from tests.shared.subscribing import Subscriber
from tests.shared.upstream import Topic, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("[[routes]\n", "Expected ']]' at the end of an array declaration (at line 1, column 9)"),
        (route("relative", NOWHERE), "route 1 (relative): path = 'relative': must begin with /"),
        (route("/a", NOWHERE) + route("/b", NOWHERE, hertbeat_seconds=1), "route 2 (/b): unknown key 'hertbeat_seconds', the nearest is"),
        (route("/a", NOWHERE) + route("/a", NOWHERE), "each route needs its own path, got '/a' twice"),
        ("", "no routes"),
    ],
)
async def test_invalid_file_changes_nothing_and_the_answer_has_the_reason(tmp_path: Path, file: str, reason: str) -> None:
    async with ScriptedUpstream([OK]) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway:
        gateway.write(file)
        answer = await gateway.post()
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
        assert answer.json()["detail"].startswith(f"{gateway.config}: {reason}")
        with pytest.raises(RouteError) as error:
            await gateway.gateway.reload.reload()
        assert str(error.value) == answer.json()["detail"], "at SIGHUP the log has the same text"
        assert await gateway.status("/") == 200
        metrics = await gateway.metrics()
        assert 'gateway_reloads_total{result="refused"} 2.0' in metrics
        assert 'gateway_reloads_total{result="done"} 0.0' in metrics


async def test_missing_file_changes_nothing(tmp_path: Path) -> None:
    async with Upstream() as upstream, reloading(tmp_path, shared("/", upstream.url)) as gateway:
        topic = upstream.add(Topic("/topic"))
        async with Subscriber(gateway.port, "/topic") as first, Subscriber(gateway.port, "/topic") as second:
            await first.join()
            gateway.config.unlink()
            answer = await gateway.post()
            assert answer.status_code == 422
            assert "No such file or directory" in answer.json()["detail"]
            await second.join()
        assert len(topic.requests) == 1


async def test_failed_store_keeps_the_old_routes_and_the_next_reload_retries(tmp_path: Path) -> None:
    async with ScriptedUpstream([OK]) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway:
        (tmp_path / "data").write_text("a file in the way")
        gateway.write(resumable("/new", upstream.url))
        answer = await gateway.post()
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "streams cannot be kept there" in answer.json()["detail"]
        assert [await gateway.status("/"), await gateway.status("/streams/x")] == [200, 200], "also this path is still the route's"
        (tmp_path / "data").unlink()
        assert (await gateway.post()).json() == {"added": ["/new"], "removed": ["/"], "changed": []}
        assert [await gateway.status("/"), await gateway.status("/streams/x")] == [404, 404]


async def test_each_reload_logs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with reloading(tmp_path, route("/a", NOWHERE), route("/b", NOWHERE)) as gateway:
        await gateway.reload(route("/a", NOWHERE, mode="shared"), route("/c", NOWHERE))
        gateway.write("nonsense")
        await gateway.post()
    said = capsys.readouterr().out
    assert "routes reloaded" in said
    assert "routes not reloaded; the old ones stay in force" in said


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_web_pages_cannot_reload(tmp_path: Path, headers: dict[str, str]) -> None:
    async with ScriptedUpstream([OK]) as upstream, reloading(tmp_path, route("/", upstream.url)) as gateway:
        gateway.write(route("/new", upstream.url))
        assert (await gateway.post(**headers)).status_code == 403
        assert (await gateway.post(Host="rebound.example", **headers)).status_code == 421
        assert await gateway.status("/") == 200
        assert (await gateway.post(**{"Sec-Fetch-Site": "none"})).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_only_post_reloads(tmp_path: Path, method: str) -> None:
    async with reloading(tmp_path, route("/", NOWHERE)) as gateway:
        gateway.write(route("/new", NOWHERE))
        answer = await gateway.post(method)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        assert 'gateway_reloads_total{result="done"} 0.0' in await gateway.metrics()


async def test_gateway_does_not_reload_while_it_shuts_down(tmp_path: Path) -> None:
    async with reloading(tmp_path, route("/", NOWHERE)) as gateway:
        await gateway.gateway.drain()
        answer = await gateway.post()
        assert (answer.status_code, answer.json()["detail"]) == (503, "the gateway is shutting down")
