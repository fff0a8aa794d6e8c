"""Programs in other languages that the tests start, built once for each state of their sources."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventstream-stack"
BUILD_SECONDS = 1200
"""The most seconds of one command, downloads included; only a defect reaches it."""


def built(kind: str, sources: Path, *commands: Sequence[str]) -> Path:
    """Return a copy of the directory `sources` in which `commands` have run.

    The copy is below the cache's directory `kind` and named for a hash of the sources and commands, so a later call finds it. Two processes
    never build the same directory at once. Raises AssertionError with the command's output if one fails.
    """
    digest = hashlib.sha256(repr(commands).encode())
    files = sorted(file for file in sources.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    for file in files:
        digest.update(f"{file.relative_to(sources)} {file.stat().st_size} ".encode() + file.read_bytes())
    folder = CACHE / kind / f"{sources.name}-{digest.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(sources, files, folder, commands)
    return folder


def _build(sources: Path, files: Sequence[Path], folder: Path, commands: Sequence[Sequence[str]]) -> None:
    """Build in a directory of its own and rename it: an interrupted build leaves nothing that looks finished."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for file in files:
        copy = unfinished / file.relative_to(sources)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    for command in commands:
        done = subprocess.run(command, cwd=unfinished, capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert done.returncode == 0, f"`{' '.join(command)}` in {unfinished} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    unfinished.rename(folder)
