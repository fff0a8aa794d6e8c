"""An event of a million lines: it is refused at the limit, and costs about as much as an event of one line and the same size."""

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from eventstream import DEFAULT_MAX_BLOCK_LINES
from tests.kit.consumer import consuming
from tests.kit.downstream import Downstream
from tests.kit.routed_gateway import Gateway, running
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, Silence, chunk

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = b"data: first\n\n"
LINES = 1_000_000
PIECE_BYTES = 64 * 1024
MODES = ("direct", "shared", "resumable")
KINDS = {
    "data": b"data\n",
    "comments": b":\n",
    "ids": b"id\n",
    "retries": b"retry:1\n",
    "unknown-crlf": b"a\r\n",
    "unknown-cr": b"a\r",
}
LARGEST, ONE_LINE = "largest", "one-line"
REASON = f"limit is {DEFAULT_MAX_BLOCK_LINES}"


def block_of(kind: str) -> bytes:
    match kind:
        case "largest":
            return b"data: 1\n" * DEFAULT_MAX_BLOCK_LINES + b"\n"
        case "one-line":
            return b"data: " + b"x" * 7_000_000 + b"\n\n"
    line = KINDS[kind]
    return line * LINES + line[-1:]


def play(asked: Asked) -> Script:
    kind = asked.target.partition("?")[2]
    block = block_of(kind)
    pieces = [chunk(block[at : at + PIECE_BYTES]) for at in range(0, len(block), PIECE_BYTES)]
    return [EVENT_STREAM_HEAD + chunk(FIRST), *pieces, LAST_CHUNK if kind in (LARGEST, ONE_LINE) else Silence()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream(play) as upstream:
        yield upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    routes: list[dict[str, object]] = [
        {"path": f"/{mode}", "upstream": upstream.url, "mode": mode, "heartbeat_seconds": 0} for mode in MODES
    ]
    routes[MODES.index("shared")]["initial"] = "history"
    routes[MODES.index("resumable")]["methods"] = ["GET"]
    async with running(routes, tmp_path_factory.mktemp("lines")) as gateway:
        yield gateway


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def receive(gateway: Gateway, target: str, enough: int) -> tuple[bytes, float]:
    """Ask, and return what came, `enough` bytes or all, with the CPU time that it cost."""
    assert gateway.process.pid is not None
    before = cpu_seconds(gateway.process.pid)
    async with Downstream(gateway.port) as client:
        await client.ask(target)
        body = await (await client.answer()).receive(enough)
    return body, cpu_seconds(gateway.process.pid) - before


@pytest.mark.parametrize("mode", MODES)
async def test_event_of_a_million_lines_is_refused_and_costs_little(gateway: Gateway, mode: str) -> None:
    block = block_of(ONE_LINE)
    body, usual = await receive(gateway, f"/{mode}?{ONE_LINE}", len(FIRST + block))
    assert block[:-2] in body
    for kind in KINDS:
        body, cost = await receive(gateway, f"/{mode}?{kind}", len(FIRST) + 1_000_000)
        assert b"data: first\n" in body
        assert len(body) < 1000
        assert cost < 5 * usual + 1
        closed = [fact for fact in gateway.process.log() if fact["event"] == "stream closed" and fact["route"] == f"/{mode}"][-1]
        assert closed["verdict"] == "cut"
        assert "lines" in closed["reason"]
        assert REASON in closed["reason"]


@pytest.mark.parametrize("mode", MODES)
async def test_event_of_as_many_lines_as_allowed_passes(gateway: Gateway, mode: str) -> None:
    block = block_of(LARGEST)
    body, _ = await receive(gateway, f"/{mode}?{LARGEST}", len(FIRST + block))
    assert block[:-1] in body


async def test_consumer_takes_as_many_lines_as_allowed_and_refuses_more(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with consuming(tmp_path / "largest", f"{upstream.url}/?{LARGEST}") as consumer:
        consumer.read_in_background()
        assert (await consumer.logs(2))[1]["data"].count("\n") == DEFAULT_MAX_BLOCK_LINES - 1
    async with consuming(tmp_path / "many", f"{upstream.url}/?data") as consumer:
        consumer.read_in_background()
        refused = await consumer.says("the source cannot be followed; retrying slowly")
        assert REASON in refused["reason"]
        assert [line["data"] for line in await consumer.logs(1)] == ["first"]
