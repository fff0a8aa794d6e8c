"""What the admin port and the log say of streams that have come and gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client import Metric

from tests.kit.gateway_process import GatewayProcess, meter, start_gateway
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Disconnect, Pause, Script, ScriptedUpstream, Silence, chunk
from tests.kit.waiting import GUARD_SECONDS

EVENT = b"data: 1\n\n"
NOT_FOUND: Script = [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]

ROUTES = """
[[routes]]
path = "/"
upstream = "{upstream}"
heartbeat_seconds = 0

[[routes]]
path = "/quiet"
upstream = "{upstream}"
heartbeat_seconds = 0.1

[[routes]]
path = "/get"
upstream = "{upstream}"
methods = ["GET"]
"""


class Plot:
    """Answers by path; `/whole` and `/cut` wait for `go`, so that their bodies come after their heads."""

    def __init__(self) -> None:
        self.pauses: list[Pause] = []

    def script(self, asked: Asked) -> Script:
        pause = Pause()
        self.pauses.append(pause)
        match asked.target.partition("?")[0]:
            case "/whole" | "/get":
                return [EVENT_STREAM_HEAD, pause, chunk(EVENT * 2), chunk(EVENT), LAST_CHUNK]
            case "/cut":
                return [EVENT_STREAM_HEAD, pause, chunk(EVENT + b"data: unfinished"), Disconnect()]
            case "/left":
                return [EVENT_STREAM_HEAD, chunk(EVENT), Silence()]
            case "/quiet":
                return [EVENT_STREAM_HEAD, Silence()]
            case _:
                return NOT_FOUND


@asynccontextmanager
async def running(tmp_path: Path, **settings: str) -> AsyncIterator[tuple[GatewayProcess, ScriptedUpstream, Plot, httpx.AsyncClient]]:
    """Start a gateway with `ROUTES` in front of a scripted upstream, and open a client."""
    plot = Plot()
    async with ScriptedUpstream(plot.script) as upstream:
        config = tmp_path / "gateway.toml"
        config.write_text(ROUTES.replace("{upstream}", upstream.url))
        async with (
            start_gateway(CONFIG=str(config), **settings) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=GUARD_SECONDS) as http,
        ):
            yield gateway, upstream, plot, http


async def stream(http: httpx.AsyncClient, plot: Plot, target: str, method: str = "GET") -> bytes | None:
    """Return the body of a stream whose upstream goes on once the head has arrived, or None if it was cut."""
    async with http.stream(method, target, headers={"Authorization": "Bearer hunter2", "Cookie": "session=hunter2"}) as response:
        plot.pauses[-1].go()
        try:
            return await response.aread()
        except httpx.RemoteProtocolError:
            return None


@dataclass
class Told:
    """What a gateway said of one stream of each kind and of some refused requests."""

    lines: dict[str, dict[str, Any]]
    """The `stream closed` lines, by path."""
    log: list[dict[str, Any]]
    """What it logged beside them."""
    metrics: dict[str, Metric]
    exit_status: int
    """After SIGTERM."""

    def meter(self, name: str, **labels: str) -> float:
        return meter(self.metrics, name, **labels)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    async with running(tmp_path_factory.mktemp("told"), LOG_LEVEL="debug") as (gateway, _, plot, http):
        lines = []
        assert await stream(http, plot, "/whole?token=hunter2") == EVENT * 3
        lines.append(await gateway.log_line("stream closed"))
        assert await stream(http, plot, "/cut?token=hunter2", "POST") is None
        lines.append(await gateway.log_line("stream closed"))
        for path, size in (("/left", len(EVENT)), ("/quiet", 4)):
            async with http.stream("GET", f"{path}?token=hunter2") as response:
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) >= size:
                        figures = await gateway.metrics()
                        assert meter(figures, "gateway_open_requests") == meter(figures, "gateway_streams_open") == 1
                        blocks = meter(figures, "gateway_stream_blocks_total") + meter(figures, "gateway_heartbeats_total")
                        assert blocks > sum(line["blocks"] for line in lines)
                        break
            lines.append(await gateway.log_line("stream closed"))
        for method, target, status in (("GET", "/none", 404), ("DELETE", "/get", 405), ("PUT", "/get", 405)):
            answer = await http.request(method, f"{target}?token=hunter2", headers={"Authorization": "Bearer hunter2"})
            assert answer.status_code == status
        metrics = await gateway.metrics()
        gateway.terminate()
        status = await gateway.exit_status()
        yield Told({line["path"]: line for line in lines}, await gateway.rest_of_log(), metrics, status)


def test_log_has_one_line_for_each_stream_that_has_closed(told: Told) -> None:
    assert list(told.lines) == ["/whole", "/cut", "/left", "/quiet"]
    assert "stream closed" not in [fact["event"] for fact in told.log]


def test_sigterm_ends_it_with_status_0(told: Told) -> None:
    assert told.exit_status == 0
    assert [fact["event"] for fact in told.log][-2:] == ["draining", "stopped"]


def test_line_of_a_complete_stream_has_route_verdict_and_counts(told: Told) -> None:
    line = told.lines["/whole"]
    assert (line["route"], line["method"], line["status"], line["client"]) == ("/", "GET", 200, "127.0.0.1")
    assert (line["verdict"], line["bytes"], line["blocks"], line["heartbeats"]) == ("complete", 27, 3, 0)
    assert (line["level"], line["service"], "reason" in line) == ("info", "gateway", False)
    assert 0 <= line["seconds"] < GUARD_SECONDS


def test_line_of_a_cut_stream_has_the_reason(told: Told) -> None:
    line = told.lines["/cut"]
    assert (line["method"], line["verdict"], line["bytes"], line["blocks"]) == ("POST", "cut", 9, 1)
    assert line["reason"] == "connection closed before the end of the response"


def test_log_line_of_an_abandoned_stream_has_the_bytes_sent(told: Told) -> None:
    assert (told.lines["/left"]["verdict"], told.lines["/left"]["bytes"], told.lines["/left"]["blocks"]) == ("left", 9, 1)
    quiet = told.lines["/quiet"]
    assert (quiet["route"], quiet["verdict"], quiet["blocks"]) == ("/quiet", "left", 0)
    assert quiet["heartbeats"] == quiet["bytes"] / len(b":\n\n") >= 2


def test_log_never_holds_a_query_or_a_header_value(told: Told) -> None:
    assert "hunter2" not in str([*told.lines.values(), *told.log])


def test_metrics_count_streams_by_how_they_ended(told: Told) -> None:
    for route, verdict in (("/", "complete"), ("/", "cut"), ("/", "left"), ("/quiet", "left")):
        assert told.meter("gateway_streams_ended_total", route=route, verdict=verdict) == 1
    assert told.meter("gateway_streams_ended_total") == 4


def test_metrics_count_sent_blocks_and_bytes(told: Told) -> None:
    assert told.meter("gateway_stream_bytes_total", route="/") == 27 + 9 + 9
    assert told.meter("gateway_stream_blocks_total", route="/") == 3 + 1 + 1
    assert told.meter("gateway_heartbeats_total", route="/quiet") == told.lines["/quiet"]["heartbeats"]
    assert told.meter("gateway_heartbeats_total", route="/") == 0


def test_metrics_distinguish_answers_of_the_upstream_from_those_of_the_gateway(told: Told) -> None:
    assert told.meter("gateway_requests_total", route="/", status="200") == 3
    assert told.meter("gateway_requests_total", route="/", status="404") == 1
    assert told.meter("gateway_rejected_total", status="404") == 0
    assert told.meter("gateway_rejected_total", reason="method", status="405") == 2
    assert told.meter("gateway_requests_total", route="/get") == 0
    assert told.meter("gateway_open_requests") == 0


def test_metrics_have_these_names_types_and_labels(told: Told) -> None:
    assert {
        name: (family.type, *(sorted(family.samples[0].labels) if family.samples else ()))
        for name, family in told.metrics.items()
        if not name.endswith("_created") and not name.startswith("process_")
    } == {
        "gateway_requests": ("counter", "route", "status"),
        "gateway_rejected": ("counter", "reason", "status"),
        "gateway_streams_ended": ("counter", "route", "verdict"),
        "gateway_stream_bytes": ("counter", "route"),
        "gateway_stream_blocks": ("counter", "route"),
        "gateway_heartbeats": ("counter", "route"),
        "gateway_open_requests": ("gauge",),
        "gateway_subscriptions": ("counter",),  # there was none, so there are no labels
        "gateway_upstream_reconnections": ("counter",),
        "gateway_shared_streams": ("gauge",),
        "gateway_upstream_requests": ("counter", "method", "route"),
        "gateway_kept_streams_running": ("gauge",),
        "gateway_resumptions": ("counter",),
        "gateway_replayed_bytes": ("counter",),
        "gateway_answers_stopped": ("counter",),
        "gateway_names_superseded": ("counter",),
        "gateway_kept_bytes": ("gauge",),
        "gateway_held_body_bytes": ("gauge",),
        "gateway_history_bytes": ("gauge",),
        "gateway_history_blocks": ("gauge",),
        "gateway_streams_open": ("gauge", "mode", "route"),
        "gateway_streams_paused": ("gauge", "route"),
        "gateway_upstream_blocks": ("counter", "route"),
        "gateway_upstream_bytes": ("counter", "route"),
        "gateway_added_latency_seconds": ("histogram", "le"),
        "gateway_loop_lag_seconds": ("histogram", "le"),
        "gateway_loop_lag_worst_seconds": ("gauge",),
        "gateway_tasks": ("gauge",),
        "gateway_build_info": ("gauge", "version"),
        "gateway_reloads": ("counter", "result"),
        "gateway_config_loaded_timestamp_seconds": ("gauge",),
        "gateway_key_set_fetches": ("counter",),
        "gateway_key_set_age_seconds": ("gauge",),
        "gateway_key_set_keys": ("gauge",),
    }
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds"} <= told.metrics.keys()
    assert all(family.documentation for family in told.metrics.values())


async def test_admin_pages_are_on_the_admin_port_only(tmp_path: Path) -> None:
    async with running(tmp_path) as (gateway, upstream, _, http), httpx.AsyncClient(base_url=gateway.admin, trust_env=False) as admin:
        assert (await admin.get("/livez")).json() == {"status": "alive"}
        assert (await admin.get("/readyz")).json() == {"status": "ready"}
        metrics = await admin.get("/metrics")
        assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert (await admin.get("/whole")).status_code == 404
        assert upstream.requests == []
        for page in ("/livez", "/readyz", "/metrics"):
            assert (await http.get(page)).status_code == 404  # it is upstream's to answer
        assert [asked.target for asked in upstream.requests] == ["/livez", "/readyz", "/metrics"]


async def test_draining_gateway_is_alive_and_not_ready_and_says_why(tmp_path: Path) -> None:
    async with (
        running(tmp_path, DRAIN_SECONDS="8") as (gateway, _, plot, http),
        httpx.AsyncClient(base_url=gateway.admin, trust_env=False, timeout=GUARD_SECONDS) as admin,
        http.stream("POST", "/whole") as response,
    ):
        gateway.terminate()
        assert (await gateway.log_line("draining"))["open"] == 1
        ready = await admin.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "not ready", "reason": "draining"})
        assert (await admin.get("/livez")).status_code == 200
        plot.pauses[-1].go()  # an answer to a POST may run to its end
        async with asyncio.timeout(GUARD_SECONDS):
            assert await response.aread() == EVENT * 3
        assert (await gateway.log_line("stream closed"))["verdict"] == "complete"
        assert await gateway.exit_status() == 0
