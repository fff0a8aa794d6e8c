"""Serve the dashboard of a single process, or a worker's samples for its parent."""

from typing import Any

from aiohttp import web

from ...http.problems import problem
from ...modes.resumable.kept_stream import KeptStream
from ...modes.resumable.store import STOPPED
from ...policy.services import parse_services
from .events import Dashboard, add_events
from .services import Services
from .snapshot import Sampler
from .snapshot_total import total
from .tail import STOP_PATH, TAIL_PATH, UNKNOWN_STREAM, Tails, stream_number

SAMPLE_PATH = "/dashboard/sample"
"""Path at which a worker's parent gets a sample."""


def add_dashboard(app: web.Application, sampler: Sampler, services: str) -> None:
    """Add the dashboard's event streams to a gateway without workers. `services` is the setting's value."""

    async def look() -> dict[str, Any]:
        sample = sampler.sample()
        return total({0: sample}) | {"state": sample["state"], "reason": "", "workers": []}

    add_events(app, Dashboard(look, Services(parse_services(services))))
    _add_controls(app, sampler)


def add_sample(app: web.Application, sampler: Sampler) -> None:
    """Add what a worker's parent requests: samples, tails and stops."""

    async def sample(_request: web.Request) -> web.Response:
        return web.json_response(sampler.sample())

    app.router.add_get(SAMPLE_PATH, sample)
    _add_controls(app, sampler)


def _add_controls(app: web.Application, sampler: Sampler) -> None:
    """Add the tails of streams to `app`, whose shutdown ends them, and the stops of kept answers."""
    tails = Tails(sampler.find)

    async def close(_app: web.Application) -> None:
        tails.close()
        sampler.close()

    async def stop(request: web.Request) -> web.Response:
        stream = sampler.find(stream_number(request))
        if stream is None:
            return problem(404, UNKNOWN_STREAM)
        if not isinstance(stream, KeptStream) or not stream.is_running:
            return problem(409, "only a kept answer that runs can be stopped")
        stream.stop(STOPPED, "stopped on the dashboard")
        return web.Response(status=204)

    app.router.add_get(TAIL_PATH, tails.answer)
    app.router.add_post(STOP_PATH, stop)
    app.on_shutdown.append(close)
