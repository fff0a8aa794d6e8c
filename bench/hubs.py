"""The hubs, which bring one stream to many subscribers: how to find, configure and start each, with one worker."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .peer_files import nchan
from .servers import Launch, Place, find_program, gateway, python

_NCHAN_MODULES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so")


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub."""

    launch: Callable[[Place, list[str]], Launch]
    """A function that returns how to start it; its second argument is `bench.broadcast`'s options for the events."""
    path: str = "/events"
    """The path to subscribe to."""
    post_path: str = ""
    """The path that takes events by POST; empty: the hub follows the broadcast by itself."""
    resumes: bool = True
    """Whether it has a history."""


def _gateway(place: Place, _: list[str]) -> Launch:
    upstream = f"http://127.0.0.1:{place.upstream_port}"
    routes = place.write("routes.toml", f'[[routes]]\npath = "/"\nupstream = "{upstream}"\nmode = "shared"\n')
    return gateway(place, CONFIG=routes)


def _nchan(place: Place, _: list[str]) -> Launch:
    config = place.write("nchan.conf", nchan(place.port, nchan_module() or ""))
    return Launch(["-p", str(place.folder), "-c", config, "-e", "stderr"])


def _queues(place: Place, _: list[str]) -> Launch:
    return Launch(["-m", "bench.queue_hub", str(place.upstream_port), str(place.port)])


def _floor(place: Place, events: list[str]) -> Launch:
    return Launch(["-m", "bench.broadcast", "--port", str(place.port), *events])


HUBS = {
    "gateway": Hub(_gateway),
    "nchan": Hub(_nchan, path="/sub", post_path="/pub"),
    "queues": Hub(_queues, resumes=False),
    "floor": Hub(_floor, resumes=False),
}
"""`gateway` is this repository's in mode shared, with history, IDs and heartbeats; `queues` is `bench.queue_hub`; `floor` is
`bench.broadcast` itself: uvloop, one write per subscriber and event, and nothing else."""


def nchan_module() -> str | None:
    """Return the path of nginx's module nchan, None when it is not installed."""
    return next((path for path in _NCHAN_MODULES if Path(path).exists()), None)


def hub_program(name: str) -> str | None:
    """Return the path of the program of hub `name`, None when it is not installed."""
    if name == "nchan":
        return find_program("nginx") if nchan_module() else None
    return python()
