"""The environment that the Makefile creates, from an index that has newer releases of everything."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest

from tests.install.interpreters import OLDEST, interpreters
from tests.install.local_index import NEWER, lock_lines, real_uv, requirements_of, served, stand_in
from tests.kit.stack import REPOSITORY, clean_environment

pytestmark = [pytest.mark.make, pytest.mark.python311, pytest.mark.timeout(300)]

ENVIRONMENT = ".venv/requirements.txt"
LOCKS = ("producer", "gateway", "consumer", "install", "tests")
LOCKED = "7.17.3"
ASKING = f"Requires-Dist: coverage[toml]>={LOCKED}\n"
COVERAGE = "Provides-Extra: toml\n"
PIN = re.compile(r"^(?P<name>[\w.-]+)(?P<extras>\[[\w.,-]+\])?==(?P<version>[^ ;\\]+)(?P<marker> ; [^\\]+)?", re.MULTILINE)


@dataclass
class Project:
    """What the Makefile needs to create an environment, with a lock of its own."""

    directory: Path
    index: str
    environ: dict[str, str]

    def make(self, python: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", ENVIRONMENT, f"PYTHON={python}"]
        return subprocess.run(command, cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=200)

    def installed(self) -> dict[str, str]:
        """Return the installed versions by name."""
        ask = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        done = subprocess.run([self.directory / ".venv/bin/python", "-c", ask], capture_output=True, text=True, check=True, timeout=60)
        return dict(json.loads(done.stdout))


def without_indexes(directory: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which pip and uv know no index and no cache except those of `variables`."""
    environ = {name: value for name, value in clean_environment().items() if not name.startswith(("PIP_", "UV_"))}
    own = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_NO_CACHE_DIR": "1", "UV_CACHE_DIR": str(directory / "uv-cache")}
    return environ | own | {"HOME": str(directory), "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | variables


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Yield the URL of an index, and two locks: of uv, and of coverage and pytest-cov, which requires coverage with an extra.

    The index also has a newer coverage.
    """
    packages = tmp_path_factory.mktemp("index")
    version, sha256 = real_uv(packages)
    uv = lock_lines({f"uv=={version}": sha256})
    pins = {
        f"coverage[toml]=={LOCKED}": stand_in(packages, "coverage", LOCKED, COVERAGE),
        "pytest-cov==7.1.0": stand_in(packages, "pytest-cov", "7.1.0", ASKING),
    }
    stand_in(packages, "coverage", NEWER, COVERAGE)
    with served(packages) as index:
        yield index, uv, uv + lock_lines(pins)


@pytest.fixture
def project(locked: tuple[str, str, str], tmp_path: Path) -> Project:
    index, uv, lock = locked
    (tmp_path / "project/tests").mkdir(parents=True)
    shutil.copy2(REPOSITORY / "Makefile", tmp_path / "project")
    shutil.copytree(REPOSITORY / "install", tmp_path / "project/install")
    (tmp_path / "project/install/requirements.txt").write_text(uv)
    (tmp_path / "project/tests/requirements.txt").write_text(lock)
    return Project(tmp_path / "project", index, without_indexes(tmp_path, PIP_INDEX_URL=index))


@pytest.mark.parametrize("version", interpreters())
def test_environment_has_the_locked_versions_despite_newer_ones_and_is_created_once(project: Project, version: str) -> None:
    made = project.make(interpreters()[version])
    assert made.returncode == 0, made.stderr
    installed = project.installed()
    assert {"coverage": LOCKED, "pytest-cov": "7.1.0", "uv": metadata.version("uv")}.items() <= installed.items()
    again = project.make(interpreters()[version])
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.parametrize("lock", ["install/requirements.txt", "tests/requirements.txt"])
def test_environment_refuses_a_file_whose_hash_is_not_locked(project: Project, lock: str) -> None:
    file = project.directory / lock
    file.write_text(re.sub("sha256:[0-9a-f]{4}", "sha256:0000", file.read_text()))
    made = project.make(interpreters()[OLDEST])
    assert made.returncode == 2
    assert "hash" in made.stderr.lower()
    assert not (project.directory / ENVIRONMENT).exists()


def test_index_of_pip_s_configuration_file_serves_uv_too(project: Project, tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nindex-url = {project.index}\n")
    del project.environ["PIP_INDEX_URL"]
    project.environ["PIP_CONFIG_FILE"] = str(configuration)
    made = project.make(interpreters()[OLDEST])
    assert made.returncode == 0, made.stderr
    assert project.installed()["coverage"] == LOCKED


def imitation(directory: Path, first: str) -> str:
    """Create an interpreter that runs `first` before its arguments."""
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -c "{first}; import sys; exec(sys.argv[1])" "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_make_names_what_is_missing_without_python(project: Project) -> None:
    made = project.make("python-that-is-not-there")
    assert made.returncode == 2
    assert "Python 3.11 or newer is needed, python-that-is-not-there is not there: install it, or name one with PYTHON=" in made.stderr


def test_make_names_what_is_missing_with_an_old_python(project: Project, tmp_path: Path) -> None:
    made = project.make(imitation(tmp_path, "import sys; sys.version_info = (3, 10, 4); sys.version = '3.10.4 (main)'"))
    assert made.returncode == 2
    assert "Python 3.11 or newer is needed" in made.stderr
    assert "is Python 3.10.4: install one and name it, as in `make run PYTHON=python3.13`" in made.stderr


def test_make_names_what_is_missing_where_the_distribution_splits_python(project: Project, tmp_path: Path) -> None:
    made = project.make(imitation(tmp_path, "import sys; sys.modules['ensurepip'] = None"))
    assert made.returncode == 2
    assert "without the module ensurepip: install it (Debian and Ubuntu: apt install python3-venv)" in made.stderr


@pytest.fixture(scope="module")
def oldest_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty environment of the oldest interpreter, with the pip that comes with it."""
    directory = tmp_path_factory.mktemp("oldest")
    subprocess.run([interpreters()[OLDEST], "-m", "venv", directory], check=True, capture_output=True, timeout=100)
    return directory / "bin/pip"


@pytest.mark.parametrize("folder", LOCKS)
def test_pip_alone_installs_each_lock_despite_newer_releases_of_everything(folder: str, tmp_path: Path, oldest_pip: Path) -> None:
    """When the lock has only `a`, pip takes `a[b]` for a package without a lock."""
    packages, lock = tmp_path / "index", tmp_path / "requirements.txt"
    known = {distribution.name.lower().replace("_", "-"): distribution for distribution in metadata.distributions()}
    pins, wanted = {}, {}
    for pin in PIN.finditer((REPOSITORY / folder / "requirements.txt").read_text()):
        name, version = pin["name"], pin["version"]
        here = known.get(name)
        installed = here is not None and here.version == version
        requirements = requirements_of(here) if here is not None and installed else ""
        pins[pin[0].strip()] = stand_in(packages, name, version, requirements)
        stand_in(packages, name, NEWER, requirements)
        if installed:
            wanted[name] = version
    lock.write_text(lock_lines(pins))
    command = [oldest_pip, "install", "--dry-run", "--require-hashes", "--report", tmp_path / "report", "-r", lock]
    with served(packages) as index:
        environ = without_indexes(tmp_path, PIP_INDEX_URL=index)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report").read_text())
    taken = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    assert NEWER not in taken.values()
    assert wanted
    assert wanted.items() <= taken.items()
