"""Common clients, as programs with one contract, and the table of their features.

A program is run as `… CLIENT URL OPTIONS`, OPTIONS being a JSON object. It prints each event as a line `{"id", "type", "data"}`, each lost
connection that it replaces by itself as `{"lost"}`, and the final result as a last line, `{"end"}` or `{"error"}`.
Without a last line it is still running: an `EventSource` reconnects for ever.
"""

import functools
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.builds import built

_HERE = Path(__file__).parent
_PACKAGES_OF = "2026-11-28"
"""The day whose npm packages are installed: the dependencies of the named packages change with each day."""
_CLASSPATH = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
MARKS: dict[str, list[pytest.MarkDecorator]] = {
    "python": [],
    "javascript": [pytest.mark.npm],
    "go": [pytest.mark.go],
    "java": [pytest.mark.maven],
    "rust": [pytest.mark.soak, pytest.mark.rust],
}


@dataclass(frozen=True)
class Client:
    """One client."""

    name: str
    language: str
    returns: bool = False
    """Whether it reconnects after a cut."""
    returns_after_end: bool = False
    """Whether it also reconnects after a stream ended in order."""
    stops_at_204: bool = False
    """Whether the status 204 ends that, as the standard requires of an `EventSource`."""
    posts: bool = False
    """Whether it can send POST."""
    retries: bool = True
    """Whether it retries after a temporary refusal."""
    errors_behind_ids: bool = True
    """Whether it shows the text of an error event in a stream with IDs, and not only that there was an error."""


def _event_source(name: str, language: str, *, posts: bool) -> Client:
    """Return a client that behaves like the standard's `EventSource`."""
    return Client(name, language, returns=True, returns_after_end=True, stops_at_204=True, posts=posts)


EVENT_SOURCES = (
    Client("sseclient-py", "python", posts=True),
    Client("httpx-sse", "python", posts=True),
    _event_source("launchdarkly-eventsource", "python", posts=False),
    _event_source("eventsource 3", "javascript", posts=True),
    _event_source("eventsource 4", "javascript", posts=True),
    _event_source("eventsource-client", "javascript", posts=True),
    Client("event-source-plus", "javascript", returns=True, returns_after_end=True, posts=True),
    Client("okhttp-sse", "java", posts=True),
    Client("okhttp-eventsource", "java", returns=True, returns_after_end=True),
    Client("WebClient", "java", posts=True),
    Client("r3labs/sse", "go", returns=True),
    _event_source("reqwest-eventsource", "rust", posts=True),
    Client("rust-eventsource-client", "rust", returns=True, returns_after_end=True, posts=True),
)
"""Clients for event streams of any kind."""

MODELS = (
    Client("ai chat", "javascript"),
    Client("ai responses", "javascript"),
    Client("ai page", "javascript", retries=False),
    Client("agents chat", "javascript"),
    Client("agents responses", "javascript"),
    Client("openai-java chat", "java"),
    Client("openai-java responses", "java"),
    Client("openai-go chat", "go"),
    Client("openai-go responses", "go"),
    Client("go-openai chat", "go", retries=False, errors_behind_ids=False),
    Client("async-openai chat", "rust"),
    Client("async-openai responses", "rust"),
)
"""SDKs for language models."""


def each(clients: Sequence[Client], which: Callable[[Client], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Run a test with each of these clients, with the marks of its language."""
    chosen = [pytest.param(client, id=client.name, marks=MARKS[client.language]) for client in clients if which(client)]
    return pytest.mark.parametrize("client", chosen)


@functools.cache
def command(language: str) -> tuple[str, ...]:
    """Return the command that runs this language's program. The first call builds it."""
    return tuple(_COMMANDS[language]())


def _python() -> list[str]:
    return [sys.executable, str(_HERE / "python")]


def _javascript() -> list[str]:
    install = ("npm", "install", "--silent", "--no-package-lock", "--ignore-scripts", f"--before={_PACKAGES_OF}")
    folder = built("real_clients", _HERE / "javascript", install)
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    node = folder / "node_modules" / f"node-{sys.platform}-{machine}" / "bin" / "node"
    return [str(node) if node.exists() else str(shutil.which("node")), str(folder / "main.mjs")]


def _go() -> list[str]:
    return [str(built("real_clients", _HERE / "go", ("go", "build", "-gcflags=all=-N -l", "-o", "realclients", ".")) / "realclients")]


def _java() -> list[str]:
    resolve = ("mvn", "--quiet", "--batch-mode", _CLASSPATH, "-Dmdep.outputFile=classpath")
    compile_ = ("sh", "-c", 'javac -proc:none -d classes -cp "$(cat classpath)" src/Main.java')
    folder = built("real_clients", _HERE / "java", resolve, compile_)
    classpath = f"{folder / 'classes'}:{(folder / 'classpath').read_text().strip()}"
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", classpath, "Main"]


def _rust() -> list[str]:
    return [str(built("real_clients", _HERE / "rust", ("cargo", "build", "--quiet")) / "target" / "debug" / "realclients")]


_COMMANDS: dict[str, Callable[[], list[str]]] = {
    "python": _python,
    "javascript": _javascript,
    "go": _go,
    "java": _java,
    "rust": _rust,
}
