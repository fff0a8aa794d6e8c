"""Run the tests with the newest release of every direct dependency, and print what broke: `python -m tests.canary [PYTEST ARGUMENT…]`.

The environment is made anew in `build/canary`, with the uv and the package index of the environment that runs this.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "canary"
PYTHON = PLACE / "bin" / "python"
_PIN = re.compile(r"==([0-9][^;, ]*)|,\s*<=?[^;, ]+")
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
_SUITE = ("-m", "not soak", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "-p", "no:cacheprovider")


def direct_dependencies(pyproject: str) -> list[str]:
    """Return the requirements of all groups, without upper limits; an exact version becomes the lower limit."""

    def members(name: str) -> Iterator[str]:
        for member in groups[name]:
            if isinstance(member, str):
                yield _PIN.sub(lambda pin: f">={pin[1]}" if pin[1] else "", member)
            else:
                yield from members(member["include-group"])

    groups = tomllib.loads(pyproject)["dependency-groups"]
    return sorted(set(members("dev")))


def differences(lock: str, installed: str) -> list[str]:
    """Return the packages whose version differs from the lock. `installed` is what `uv pip freeze` prints."""
    locked = {_plain(name): version for name, version in _LOCKED.findall(lock)}
    now = {_plain(name): version for name, version in _LOCKED.findall(installed)}
    return [f"{name} {locked.get(name, 'not locked')} → {now[name]}" for name in sorted(now) if now[name] != locked.get(name)]


def failures(report: str) -> list[str]:
    """Return the names of the tests that failed, from a JUnit report."""
    cases = ElementTree.fromstring(report).iter("testcase")  # our own pytest wrote it
    return [f"{case.get('classname')}::{case.get('name')}" for case in cases if {"failure", "error"} & {child.tag for child in case}]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip_setting(name: str) -> str:
    """Return a setting of pip, which uv does not read; empty without one, or without pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(rf"^[^=]*\.{name}='(.*)'$", printed, re.MULTILINE)
    return found[1] if found else ""


def _uv(*arguments: str) -> str:
    settings = {"UV_DEFAULT_INDEX": _pip_setting("index-url"), "SSL_CERT_FILE": _pip_setting("cert")}
    environment = {name: value for name, value in settings.items() if value} | os.environ
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run([uv, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> int:
    """Return the exit status of the tests."""
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(PLACE))
    wanted = direct_dependencies((ROOT / "pyproject.toml").read_text())
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", str(PYTHON), *wanted)
    report = PLACE / "report.xml"
    status = subprocess.run([PYTHON, "-m", "pytest", *_SUITE, f"--junitxml={report}", *sys.argv[1:]], cwd=ROOT).returncode
    command = "import json; from gateway.http.internals import look; print(json.dumps(look()))"
    changes = json.loads(subprocess.run([PYTHON, "-c", command], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    newer = differences((ROOT / "tests/requirements.txt").read_text(), _uv("pip", "freeze", "--quiet", "--python", str(PYTHON)))
    broken = failures(report.read_text()) if report.exists() else ["pytest wrote no report"]
    for title, lines in (("versions that differ from the lock", newer), ("changes of aiohttp", changes), ("failed", broken)):
        sys.stdout.write("\n  ".join([f"{title}: {len(lines)}", *lines]) + "\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
