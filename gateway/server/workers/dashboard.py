"""Serve the dashboard of a gateway with workers: the parent combines the workers' samples."""

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
from aiohttp import web

from ...http.problems import problem
from ...observe.dashboard.events import FIELDS, WRITE_SECONDS, Dashboard, add_events
from ...observe.dashboard.process import SAMPLE_PATH
from ...observe.dashboard.services import Services
from ...observe.dashboard.snapshot_total import total
from ...observe.dashboard.tail import TAIL_PATH
from ...policy.services import parse_services
from .process import Crew, Worker


def add_dashboard_of_workers(app: web.Application, workers: Crew, services: str) -> None:
    """Add the dashboard's event streams, and the tails of all workers' streams. `services` is the setting's value."""

    async def look() -> dict[str, Any]:
        asked = await asyncio.gather(*map(_ask, workers.workers))
        samples = {worker.number: sample for worker, sample in zip(workers.workers, asked, strict=True) if sample is not None}
        reasons = [_not_ready(worker, sample) for worker, sample in zip(workers.workers, asked, strict=True)]
        reason = "; ".join(filter(None, reasons))
        state = "draining" if workers.draining else "not ready" if reason else "ready"
        states = [{"number": worker.number, "state": worker.state} for worker in workers.workers]
        return total(samples, workers.timeline.marks) | {"state": state, "reason": reason, "workers": states}

    async def tail(request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["key"].partition("-")[0])
        if number >= len(workers.workers):
            return problem(404, f"worker numbers are 0 to {len(workers.workers) - 1}, got {number}")
        return await _pass_on(request, workers.workers[number])

    add_events(app, Dashboard(look, Services(parse_services(services))))
    app.router.add_get(TAIL_PATH, tail)


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
            response = web.StreamResponse(headers=FIELDS)
            await response.prepare(request)
            with contextlib.suppress(TimeoutError, ConnectionResetError, aiohttp.ClientError):
                async for part in answer.content.iter_any():
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(part)
            return response
    except (TimeoutError, aiohttp.ClientError):
        return problem(503, f"worker {worker.number} does not answer; it is {worker.state}")
