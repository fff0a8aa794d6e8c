"""Serve the dashboard of a gateway with workers: the parent combines the workers' samples."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from aiohttp import web

from ...http.problems import problem
from ...observe.dashboard.events import Dashboard, add_events, send_stream
from ...observe.dashboard.process import SAMPLE_PATH
from ...observe.dashboard.services import Services
from ...observe.dashboard.snapshot_total import total
from ...observe.dashboard.tail import STOP_PATH, TAIL_PATH
from ...policy.services import parse_services
from .pool import WorkerPool
from .process import Worker


def add_dashboard_of_workers(app: web.Application, pool: WorkerPool, services: str) -> None:
    """Add the dashboard's event streams, and the tails of all workers' streams. `services` is the setting's value."""

    async def look() -> dict[str, Any]:
        asked = await asyncio.gather(*map(_ask, pool.workers))
        samples = {worker.number: sample for worker, sample in zip(pool.workers, asked, strict=True) if sample is not None}
        reasons = [_not_ready(worker, sample) for worker, sample in zip(pool.workers, asked, strict=True)]
        reason = "; ".join(filter(None, reasons))
        state = "draining" if pool.draining else "not ready" if reason else "ready"
        states = [{"number": worker.number, "state": worker.state} for worker in pool.workers]
        return total(samples, pool.timeline.marks) | {"state": state, "reason": reason, "workers": states}

    async def tail(request: web.Request) -> web.StreamResponse:
        worker = find_worker(pool, request.match_info["key"].partition("-")[0])
        return await _pass_on(request, worker) if isinstance(worker, Worker) else worker

    async def stop(request: web.Request) -> web.Response:
        worker = find_worker(pool, request.match_info["key"].partition("-")[0])
        return await answer_of(worker, request.path, "POST") if isinstance(worker, Worker) else worker

    add_events(app, Dashboard(look, Services(parse_services(services))))
    app.router.add_get(TAIL_PATH, tail)
    app.router.add_post(STOP_PATH, stop)


def find_worker(pool: WorkerPool, number: str) -> Worker | web.Response:
    """Return the worker with this number, or the answer for an unknown one."""
    if int(number) < len(pool.workers):
        return pool.workers[int(number)]
    return problem(404, f"worker numbers are 0 to {len(pool.workers) - 1}, got {int(number)}")


async def answer_of(worker: Worker, target: str, method: str, body: bytes = b"") -> web.Response:
    """Return a worker's answer, or 503 if it does not answer."""
    try:
        status, media_type, content = await worker.ask(target, method, body)
    except (TimeoutError, aiohttp.ClientError):
        return problem(503, _silent(worker))
    return web.Response(status=status, headers={"Content-Type": media_type}, body=content)


async def _ask(worker: Worker) -> dict[str, Any] | None:
    """Return a worker's sample, None if it does not answer."""
    try:
        status, _, body = await worker.ask(SAMPLE_PATH)
    except (TimeoutError, aiohttp.ClientError):
        return None
    return dict(json.loads(body)) if status == 200 else None


def _not_ready(worker: Worker, sample: dict[str, Any] | None) -> str:
    if worker.state != "ready":
        return f"worker {worker.number} is {worker.state}"
    return "" if sample is not None else f"worker {worker.number} does not answer"


async def _pass_on(request: web.Request, worker: Worker) -> web.StreamResponse:
    """Stream a worker's answer to the viewer."""
    try:
        async with worker.open(request.path) as answer:
            if answer.status != 200:
                return web.Response(
                    status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}, body=await answer.read()
                )
            return await send_stream(request, _parts(answer))
    except (TimeoutError, aiohttp.ClientError):
        return problem(503, _silent(worker))


def _silent(worker: Worker) -> str:
    return f"worker {worker.number} does not answer; it is {worker.state}"


async def _parts(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):  # the worker ended
        async for part in answer.content.iter_any():
            yield part
