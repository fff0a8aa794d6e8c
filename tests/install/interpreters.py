"""The Python interpreters of this machine that the project supports."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST = "3.11"
SUPPORTED = (OLDEST, "3.12", "3.13", "3.14")


@functools.cache
def interpreters() -> dict[str, str]:
    """Return the paths of complete interpreters by version: the one that runs the tests, those on PATH, and pyenv's."""
    found = {}
    for version in SUPPORTED:
        working = next(filter(functools.partial(_is_complete, version), _candidates(version)), None)
        if working is not None:
            found[version] = working
    return found


def _candidates(version: str) -> Iterator[str]:
    own = Path(sys.base_prefix) / "bin" / f"python{version}"
    if own.exists():
        yield str(own)
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))


def _is_complete(version: str, path: str) -> bool:
    """Whether this interpreter has the version of its name (pyenv's shims may not run), and everything that an environment needs."""
    ask = "import ensurepip, venv, sys; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([path, "-c", ask], capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and done.stdout.strip() == version
