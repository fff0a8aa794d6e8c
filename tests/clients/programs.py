"""SDKs of other languages, as small programs that stream one completion each."""

import asyncio
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kit.waiting import GUARD_SECONDS

HERE = Path(__file__).parent
_INSTALL_SECONDS = 280


@dataclass(frozen=True)
class Outcome:
    """A client's result of a completion."""

    text: str
    finish: str | None
    error: str | None
    """Message of the error that the client shows, None if it shows none."""


def install_npm(directory: Path) -> Path:
    """Install the packages of `npm/package.json`; return the directory with the programs, from which `node` finds the packages."""
    programs = directory / "npm"
    shutil.copytree(HERE / "npm", programs)
    quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(["npm", "install", *quiet], cwd=programs, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
    return programs


def build_go(directory: Path) -> Path:
    """Build the program in `go/`; return its path."""
    program = directory / "client"
    subprocess.run(
        ["go", "build", "-buildvcs=false", "-o", program, "."], cwd=HERE / "go", check=True, capture_output=True, timeout=_INSTALL_SECONDS
    )
    return program


async def run(*command: str | Path) -> str:
    """Run a program to its end; return what it printed."""
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return output.decode()
