"""The producer's answers match its OpenAPI document: status, content type, and schema of each answer and event."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import load_all_checks
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from producer.settings import Settings
from tests.kit.producer import app_without_log
from tests.kit.stack import ServiceProcess, free_ports

load_all_checks()

HEALTH = list(HealthCheck)
OPERATIONS = [(method, path) for path, methods in app_without_log(Settings()).openapi()["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def producer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    directory = tmp_path_factory.mktemp("openapi")
    [port] = free_ports(1)
    environ = {
        "PRODUCER_PORT": str(port),
        "PRODUCER_LOG_DIR": str(directory / "log"),
        "PRODUCER_DEMO": "false",
        "PRODUCER_LOG_SYNC": "interval",
    }
    process = ServiceProcess("producer", port, environ, directory / "output")
    process.start()
    try:
        process.wait_until_ready()
        yield process
        assert process.stop() == 0
        assert "Traceback" not in process.output.read_text()
    finally:
        if process.running:
            process.kill()


@pytest.fixture(scope="module")
def api(producer: ServiceProcess) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{producer.status_url}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_described(api: BaseSchema, method: str, path: str) -> None:
    @settings(max_examples=25, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=HEALTH)
    @given(api[path][method].as_strategy())
    def hold(case: Case) -> None:
        query = dict(case.query or {})
        if method == "get" and path.endswith("/events"):
            query["follow"] = "false"  # or it would not end
        if path in ("/", "/sse", "/plain"):
            query["interval_ms"] = 0
            query.pop("repeat", None)
        case.query = query
        # A schema cannot say that an id must be of some stream, or that two parameters must agree.
        case.call_and_validate(timeout=20, excluded_checks=[positive_data_acceptance])

    hold()
