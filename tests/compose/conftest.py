"""Images that are built once, and a stack for all files whose tests are independent."""

from collections.abc import Iterator

import pytest

from tests.compose.project import Project, build_images, run_project


@pytest.fixture(scope="session")
def images() -> Iterator[str]:
    """Yield the name of the Compose project that has the services' images."""
    with build_images() as images:
        yield images


@pytest.fixture(scope="session")
def project(images: str) -> Iterator[Project]:
    """Run a stack with the settings of the compose file."""
    with run_project(images) as project:
        yield project
