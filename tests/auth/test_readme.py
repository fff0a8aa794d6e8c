"""Test that the example of gateway/README.md prints its documented output."""

import asyncio
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.kit.documentation import DOCUMENTATION
from tests.kit.stack import ServiceProcess, free_ports

SECTION = DOCUMENTATION.partition("## Authentication\n")[2].partition("\n## ")[0]


@pytest.mark.curl
async def test_key_of_the_example_opens_only_what_the_page_says(tmp_path: Path) -> None:
    port, admin_port = free_ports(2)
    routes = tmp_path / "routes.toml"
    routes.write_text(re.findall(r"^```toml\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)[0])
    environ = {"GATEWAY_PORT": str(port), "GATEWAY_ADMIN_PORT": str(admin_port), "GATEWAY_CONFIG": str(routes)}
    environ["GATEWAY_UPSTREAM"] = "http://127.0.0.1:1"  # no upstream listens there
    gateway = ServiceProcess("gateway", admin_port, environ, tmp_path / "log")
    [(command, printed)] = re.findall(r"^\$ (curl .*)\n((?:.*\n)*?)```$", SECTION, re.MULTILINE)

    async def run(command: str) -> str:
        arguments = shlex.split(command.replace("localhost:8080", f"127.0.0.1:{port}"))
        done = await asyncio.to_thread(subprocess.run, [*arguments, "-s", "--noproxy", "*"], capture_output=True, text=True, timeout=30)
        return done.stdout

    try:
        gateway.start()
        await asyncio.to_thread(gateway.wait_until_ready)
        assert await run(command) == printed.rstrip("\n")
        assert '"status": 502' in await run(command.replace("/news/", "/orders.new/"))
        assert '"status": 401' in await run(command.replace("key=", "key=x"))
    finally:
        await asyncio.to_thread(gateway.stop)
