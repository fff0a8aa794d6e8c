"""The servers under test, each with one worker and without buffering: how to find, configure and start them."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import peer_files

REPOSITORY = Path(__file__).parent.parent


ALLOCATOR = {"PYTHONMALLOC": "malloc", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=400"}
"""The allocator settings of the gateway's image."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place where a server runs."""

    port: int
    upstream_port: int
    spare_port: int
    """For a server that needs a second one."""
    folder: Path
    """A temporary directory for its files."""

    def write(self, name: str, text: str) -> str:
        """Write the file `name` and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a program."""

    arguments: list[str]
    environ: dict[str, str] = field(default_factory=dict)


def python() -> str:
    """Return the interpreter of gateway and naive proxy: GATEWAY_PYTHON, by default this one."""
    return os.environ.get("GATEWAY_PYTHON") or sys.executable


def program(name: str) -> str | None:
    """Return the path of the program of server `name`, from the directory BENCH_PEERS or PATH; None when it is not installed."""
    if name in ("gateway", "naive"):
        return python()
    return find_program(name)


def find_program(name: str) -> str | None:
    """Return the path of a peer's program."""
    folders = (os.environ.get("BENCH_PEERS", ""), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin")  # off users' PATH
    return shutil.which(name, path=os.pathsep.join(filter(None, folders)))


def environment() -> dict[str, str]:
    """Return the environment of this process without settings of the gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}


def gateway(place: Place, **more: str) -> Launch:
    """Return how to start the gateway in mode direct, unless a setting in `more` overrides that; with the allocator of its image."""
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(place.port),
        "ADMIN_HOST": "127.0.0.1",
        "ADMIN_PORT": str(place.spare_port),
        "UPSTREAM": f"http://127.0.0.1:{place.upstream_port}",
        "DATA_DIR": str(place.folder / "data"),
        "MAX_STREAMS": "100000",
        "MAX_STREAMS_PER_CLIENT": "100000",
    }
    return Launch(["-m", "gateway"], ALLOCATOR | {f"GATEWAY_{name}": value for name, value in (settings | more).items()})


def _naive(place: Place) -> Launch:
    return Launch(["-m", "bench.naive_proxy", str(place.upstream_port), str(place.port)])


def _nginx(place: Place) -> Launch:
    config = place.write("nginx.conf", peer_files.nginx(place.port, place.upstream_port))
    return Launch(["-p", str(place.folder), "-c", config, "-e", "stderr"])


def _haproxy(place: Place) -> Launch:
    return Launch(["-db", "-f", place.write("haproxy.cfg", peer_files.haproxy(place.port, place.upstream_port))])


def _envoy(place: Place) -> Launch:
    config = place.write("envoy.json", peer_files.envoy(place.port, place.upstream_port))
    return Launch(["-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"])


def _caddy(place: Place) -> Launch:
    config = place.write("Caddyfile", peer_files.caddy(place.port, place.upstream_port))
    home = str(place.folder)
    return Launch(
        ["run", "--config", config, "--adapter", "caddyfile"],
        {"GOMAXPROCS": "1", "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home},
    )


def _traefik(place: Place) -> Launch:
    routes = place.write("routes.yaml", peer_files.traefik_routes(place.upstream_port))
    config = place.write("traefik.yaml", peer_files.traefik(place.port, routes))
    return Launch([f"--configFile={config}"], {"GOMAXPROCS": "1"})


SERVERS: dict[str, Callable[[Place], Launch]] = {
    "gateway": gateway,
    "naive": _naive,
    "nginx": _nginx,
    "haproxy": _haproxy,
    "envoy": _envoy,
    "caddy": _caddy,
    "traefik": _traefik,
}
"""How to start each server. `gateway` is this repository's in mode direct, `naive` is `bench.naive_proxy`."""
