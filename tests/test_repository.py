"""The repository keeps its own rules, and README.md matches the code."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client import CollectorRegistry

from bench.servers import ALLOCATOR, Place, gateway
from gateway.policy.routes import Route
from producer.settings import Settings as ProducerSettings
from service.process_metrics import add_process_metrics
from service.settings import ServiceSettings, setting_names
from tests.kit.documentation import DOCUMENTATION
from tests.kit.producer import app_without_log
from tests.kit.stack import REPOSITORY

SERVICES = ("producer", "gateway", "consumer")
PACKAGES = ("eventstream", "service", *SERVICES)
LOCKS = {"producer": "producer", "gateway": "gateway", "consumer": "consumer", "install": "install", "dev": "tests"}
"""The dependency group that each directory's requirements.txt is the lock of."""
COMPOSE_ONLY = {"PUBLIC_PORT", "ADMIN_PORT", "PYTHON_IMAGE", "HEALTH_INTERVAL"}


def settings_class(service: str) -> type[ServiceSettings]:
    module = importlib.import_module({"gateway": "gateway.policy.settings"}.get(service, f"{service}.settings"))
    [found] = {kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, ServiceSettings)} - {ServiceSettings}
    return found


def variables(service: str) -> set[str]:
    """Return the names of the service's settings as environment variables."""
    return setting_names(settings_class(service))


def metrics(service: str) -> set[str]:
    """Return the names under which the service's metrics are exposed."""
    registry = CollectorRegistry()
    add_process_metrics(service, registry)
    names = {family.name for family in registry.collect() if family.name.startswith(f"{service}_")}
    for module in (REPOSITORY / service).rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=kind) | ast.Attribute(attr=kind), args=[ast.Constant(value=str(name)), *_]) if (
                    name.startswith(f"{service}_")
                ):
                    names.add(name.removesuffix("_total") + "_total" if kind.startswith("Counter") else name)
    return names


def locked(folder: str) -> dict[str, str]:
    """Return version by canonical name of a requirements.txt; a name that is locked per platform counts once."""
    lines = (REPOSITORY / folder / "requirements.txt").read_text().splitlines()
    pins = (re.match(r"([\w.-]+)(?:\[[\w.,-]+\])?==([^ ;]+)", line) for line in lines)
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def required(group: str) -> Iterator[Requirement]:
    """Yield the requirements of a dependency group, including those of its included groups."""
    groups: dict[str, list[Any]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    for entry in groups[group]:
        if isinstance(entry, dict):
            yield from required(entry["include-group"])
        else:
            yield Requirement(entry)


def modules() -> list[Path]:
    return sorted(module for package in PACKAGES for module in (REPOSITORY / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.fixture(scope="module")
def readme() -> str:
    return DOCUMENTATION


@pytest.fixture(scope="module")
def compose() -> str:
    return (REPOSITORY / "docker-compose.yml").read_text("utf-8")


def test_imports_go_only_where_the_contracts_allow() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_has_a_vague_name() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "base"}
    assert [relative(module) for module in modules() if module.stem in vague or module.parent.name in vague] == []


def test_modules_have_at_most_300_lines() -> None:
    lengths = {relative(module): len(module.read_text().splitlines()) for module in modules()}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize("service", SERVICES)
def test_readme_documents_every_setting(readme: str, service: str) -> None:
    assert sorted(name for name in variables(service) if not re.search(rf"\b{name}\b", readme)) == []


def test_readme_names_no_removed_setting(readme: str) -> None:
    known = set().union(*map(variables, SERVICES)).union(*(settings_class(service).others_variables for service in SERVICES))
    assert sorted(set(re.findall(r"\b(?:PRODUCER|GATEWAY|CONSUMER)_[A-Z0-9_]+\b", readme)) - known) == []


@pytest.mark.parametrize("service", SERVICES)
def test_readme_documents_every_metric(readme: str, service: str) -> None:
    names = metrics(service)
    assert names
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", readme)) == []


def test_readme_names_no_removed_metric(readme: str) -> None:
    known = set().union(*map(metrics, SERVICES))
    named = {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"\b(?:producer|gateway|consumer)_[a-z0-9_]+\b", readme)}
    assert sorted(named - known) == []


def test_readme_documents_every_key_of_a_route(readme: str) -> None:
    assert sorted(key for key in Route.model_fields if f"`{key}`" not in readme) == []


def test_readme_documents_every_path_of_the_producer(readme: str) -> None:
    paths = app_without_log(ProducerSettings()).openapi()["paths"]
    assert {"/", "/sse", "/plain"} <= set(paths)
    assert sorted(path for path in paths if not re.search(rf"[` ]{re.escape(path)}[`? ]", readme)) == []


def test_readme_documents_every_make_target_and_no_other(readme: str) -> None:
    targets = set(re.findall(r"^([a-z]+):.* ## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)\b", readme, re.MULTILINE))
    assert "test" in targets
    assert named == targets


def test_readme_names_only_tests_that_exist(readme: str) -> None:
    named = re.findall(r"\b(tests/[\w./-]*\w)(?:::(\w+))?", readme)
    assert named
    missing = []
    for path, function in named:
        file = REPOSITORY / path
        if not file.exists() or (function and not re.search(rf"^ *(async )?def {function}\(", file.read_text(), re.MULTILINE)):
            missing.append(f"{path}::{function}")
    assert missing == []


def test_readme_documents_the_variables_of_the_compose_file(readme: str, compose: str) -> None:
    interpolated = set(re.findall(r"\$\{(\w+)", compose))
    assert interpolated >= COMPOSE_ONLY
    assert sorted(name for name in interpolated if not re.search(rf"\b{name}\b", readme)) == []


@pytest.mark.parametrize("service", SERVICES)
def test_compose_passes_every_setting_that_the_image_does_not_fix(compose: str, service: str) -> None:
    passed = re.findall(rf"^      ({service.upper()}_[A-Z0-9_]+):", compose, re.MULTILINE)
    fixed = re.findall(rf"\b({service.upper()}_[A-Z0-9_]+)=", (REPOSITORY / service / "Dockerfile").read_text())
    assert sorted(passed + fixed) == sorted(variables(service))


@pytest.mark.parametrize("service", SERVICES)
def test_image_is_installed_from_hashes_and_runs_as_a_number(service: str) -> None:
    text = (REPOSITORY / service / "Dockerfile").read_text()
    assert f"COPY {service}/requirements.txt requirements.txt\nRUN install/packages" in text
    assert re.search(r"^USER \d+:\d+$", text, re.MULTILINE)
    assert text.endswith(f'\nCMD ["python", "-m", "{service}"]\n')


def test_gateway_has_the_same_allocator_however_it_is_started() -> None:
    wanted = " ".join(f"{name}={value}" for name, value in ALLOCATOR.items())
    assert [name for name in ("gateway/Dockerfile", "Procfile", "gateway/README.md") if wanted not in (REPOSITORY / name).read_text()] == []
    assert ALLOCATOR.items() <= gateway(Place(1, 2, 3, Path())).environ.items()


@pytest.mark.parametrize(("group", "folder"), LOCKS.items())
def test_lock_has_the_requirements_of_pyproject(group: str, folder: str) -> None:
    versions = locked(folder)
    unmet = [str(asked) for asked in required(group) if not asked.specifier.contains(versions.get(canonicalize_name(asked.name), "0"))]
    assert unmet == []


@pytest.mark.parametrize("folder", [*SERVICES, "install"])
def test_images_and_uv_have_the_versions_of_the_tests(folder: str) -> None:
    assert locked(folder).items() <= locked("tests").items()


@pytest.mark.parametrize("folder", LOCKS.values())
def test_lock_has_hashes_and_no_index_address(folder: str) -> None:
    text = (REPOSITORY / folder / "requirements.txt").read_text()
    assert not re.search(r"://|--(index-url|extra-index-url|find-links|trusted-host)", text)
    for pin in re.split(r"\n(?=\S)", text.strip()):
        assert pin.startswith("#") or "--hash=sha256:" in pin, pin


def test_wheel_has_the_files_beside_the_modules() -> None:
    globs = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["gateway"]
    packed = {file for glob in globs for file in (REPOSITORY / "gateway").glob(glob)}
    assert {file.name for file in packed} >= {"routes.toml", "dashboard.html", "demo.js"}
    assert all(list((REPOSITORY / "gateway").glob(glob)) for glob in globs)
