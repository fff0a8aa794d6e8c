"""The dashboard of one process: its own when it is the only one, else what its parent asks for."""

from typing import Any

from aiohttp import web

from .events import Dashboard, add_events
from .services import Services, parse_services
from .snapshot import Sampler
from .snapshot_total import total
from .tail import Tails, add_tails

SAMPLE_PATH = "/dashboard/sample"
"""Where a worker gives its parent a sample."""


def add_dashboard(app: web.Application, sampler: Sampler, services: str) -> None:
    """Adds the event streams of the dashboard of a gateway that is one process. `services` is the setting."""

    async def look() -> dict[str, Any]:
        sample = sampler.sample()
        return total({0: sample}) | {"state": sample["state"], "reason": "", "workers": []}

    add_events(app, Dashboard(look, Services(parse_services(services))))
    _add_tails(app, sampler)


def add_sample(app: web.Application, sampler: Sampler) -> None:
    """Adds what the parent of a worker asks for."""

    async def sample(_request: web.Request) -> web.Response:
        return web.json_response(sampler.sample())

    app.router.add_get(SAMPLE_PATH, sample)
    _add_tails(app, sampler)


def _add_tails(app: web.Application, sampler: Sampler) -> None:
    async def close(_app: web.Application) -> None:
        sampler.close()

    add_tails(app, Tails(sampler.find))
    app.on_shutdown.append(close)
