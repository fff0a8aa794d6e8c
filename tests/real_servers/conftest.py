"""One gateway in front of all servers, with a route of each mode for each; a server runs while its tests do."""

import ssl
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.kit.certificates import Authority
from tests.kit.routed_gateway import Route, running
from tests.kit.stack import free_ports
from tests.kit.waiting import GUARD_SECONDS
from tests.real_servers.asking import MODES, Topic
from tests.real_servers.servers import KINDS, SCHEMES, Kind, Server, names


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def servers(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Server]:
    """Return all servers by name; none has been started."""
    certificate = authority.issue("server")
    directory = tmp_path_factory.mktemp("servers")
    ports = iter(free_ports(2 * len(KINDS)))

    def server(kind: Kind, scheme: str) -> Server:
        name = f"{kind.name}-{scheme}"
        return Server(name, kind, next(ports), certificate if scheme == "tls" else None, directory / f"{name}.output")

    found = [server(kind, scheme) for kind in KINDS for scheme in SCHEMES]
    return {server.name: server for server in found}


def _routes(server: Server, authority: Authority) -> Iterator[Route]:
    modes = {"shared": {"linger_seconds": 0}, "resumable": {"orphan_seconds": 0, "methods": ["GET", "HEAD", "POST"]}}
    tls = {"ca_file": str(authority.file)} if server.url.startswith("https") else {}
    for mode in MODES:
        yield {"path": f"/{server.name}/{mode}/", "upstream": server.url, "mode": mode, "heartbeat_seconds": 0} | modes.get(mode, {}) | tls


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway_url(servers: dict[str, Server], authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    routes = [route for server in servers.values() for route in _routes(server, authority)]
    async with running(routes, tmp_path_factory.mktemp("gateway")) as gateway:
        yield f"http://127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module", params=names())
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Iterator[Server]:
    """Yield a server that answers."""
    found = servers[request.param]
    found.start()
    try:
        yield found
    finally:
        found.kill()


@pytest.fixture(scope="session")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


@pytest_asyncio.fixture
async def topic(server: Server, gateway_url: str, trust: ssl.SSLContext) -> AsyncIterator[Topic]:
    """Yield a topic of the test's own at the server."""
    async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=GUARD_SECONDS) as http:
        yield Topic(server, gateway_url, http)
