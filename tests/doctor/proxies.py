"""Run the proxies that stand between sources and clients in production, each on a free port until the block ends."""

import asyncio
import contextlib
import functools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web

from tests.kit.stack import free_ports

START_SECONDS = 20.0


@contextlib.asynccontextmanager
async def program(command: Sequence[str | Path], directory: Path, port: int) -> AsyncIterator[str]:
    """Run a proxy that listens on `port`, and yield its URL once it accepts connections."""
    output = directory / "output"
    environment = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await _accepts(port):
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@contextlib.asynccontextmanager
async def nginx(upstream: str, directory: Path) -> AsyncIterator[str]:
    """Run nginx: `/default/` has only proxy_pass, `/unbuffered/` no buffering, and `/gzip/` compresses event streams."""
    [port] = free_ports(1)
    temporary = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    unbuffered = "proxy_http_version 1.1; proxy_buffering off;"
    config = directory / "nginx.conf"
    config.write_text(f"""daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
access_log off;
{temporary}server {{
listen 127.0.0.1:{port};
location /default/ {{ proxy_pass {upstream}; }}
location /unbuffered/ {{ proxy_pass {upstream}; {unbuffered} }}
location /gzip/ {{ proxy_pass {upstream}; proxy_http_version 1.1; gzip on; gzip_types text/event-stream; gzip_min_length 0; }}
}}
}}
""")
    async with program([shutil.which("nginx") or "nginx", "-p", directory, "-c", config], directory, port) as url:
        yield url


@contextlib.asynccontextmanager
async def haproxy(upstream: str, directory: Path, option: str = "") -> AsyncIterator[str]:
    """Run HAProxy with a timeout of 1 s for a silent source."""
    [port] = free_ports(1)
    config = directory / "haproxy.cfg"
    config.write_text(f"""defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 1s
    {option}
frontend all
    bind 127.0.0.1:{port}
    default_backend source
backend source
    server source {upstream.removeprefix("http://")}
""")
    async with program([shutil.which("haproxy") or "haproxy", "-db", "-f", config], directory, port) as url:
        yield url


@contextlib.asynccontextmanager
async def caddy(upstream: str, directory: Path) -> AsyncIterator[str]:
    """Run Caddy as a reverse proxy that compresses for clients that accept it."""
    [port] = free_ports(1)
    config = directory / "Caddyfile"
    config.write_text(f"""{{
    admin off
    auto_https off
    persist_config off
}}
http://127.0.0.1:{port} {{
    encode gzip
    reverse_proxy {upstream}
}}
""")
    command = [shutil.which("caddy") or "caddy", "run", "--config", config, "--adapter", "caddyfile"]
    async with program(command, directory, port) as url:
        yield url


@contextlib.asynccontextmanager
async def caddy_with_tls(upstream: str, directory: Path) -> AsyncIterator[tuple[str, Path]]:
    """Run Caddy with TLS and its own certificate authority; yield the URL and the authority's certificate."""
    [port] = free_ports(1)
    config = directory / "Caddyfile"
    config.write_text(f"""{{
    admin off
    auto_https disable_redirects
    persist_config off
    skip_install_trust
}}
https://localhost:{port} {{
    tls internal
    reverse_proxy {upstream}
}}
""")
    command = [shutil.which("caddy") or "caddy", "run", "--config", config, "--adapter", "caddyfile"]
    async with program(command, directory, port):
        yield f"https://localhost:{port}", directory / "caddy/pki/authorities/local/root.crt"


@contextlib.asynccontextmanager
async def naive(upstream: str) -> AsyncIterator[str]:
    """Run the typical first attempt at a proxy: it treats the stream as lines of text."""

    async def handle(request: web.Request) -> web.StreamResponse:
        async with aiohttp.ClientSession() as session, session.get(upstream + request.path_qs) as answer:
            response = web.StreamResponse(headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):  # the client has left
                async for part in answer.content.iter_any():
                    for line in part.decode(errors="replace").splitlines():
                        await response.write(line.encode() + b"\n")
            return response

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    async with served(application) as url:
        yield url


@contextlib.asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[str]:
    """Serve an application in this process and yield its URL."""
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Proxy = Callable[[str, Path], contextlib.AbstractAsyncContextManager[str]]
PROGRAMS: dict[str, tuple[str, Proxy]] = {
    "nginx": ("nginx", nginx),
    "haproxy": ("haproxy", haproxy),
    "haproxy without delay": ("haproxy", functools.partial(haproxy, option="option http-no-delay")),
    "caddy": ("caddy", caddy),
}
"""Proxies that must be installed, each with the program that it needs."""
