"""The kind of each test, by its folder, its tools and what it calls. It decides in which run the test belongs."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType

import pytest

KINDS = {
    "unit": "opens no socket and starts no process; `make check`",
    "process": "opens sockets or starts our own processes",
    "system": "needs a Docker engine or a browser",
    "world": "needs servers, clients or SDKs of others",
    "soak": "runs for SOAK_SECONDS or FUZZ_SECONDS; `make soak` and `make fuzz` only",
}

BUDGET_SECONDS = {"unit": 45, "process": 240, "system": 360, "world": 360}
"""The most seconds that all tests of a kind may take on two idle cores; unit tests, lint and types together 60 s."""

_PLACES = {
    "soak": "soak",
    "fuzz": "soak",
    "compose": "system",
    "browser": "system",
    "clients": "world",
    "real_clients": "world",
    "real_servers": "world",
    "attacks": "process",
    "bench": "process",
    "end_to_end": "process",
    "install": "process",
    "proxy": "process",
    "reload": "process",
    "resumable": "process",
    "shared": "process",
}
"""The kind of all tests of a folder. In other folders they are of kind unit, unless they use one of the tools or openers below."""

_TOOLS = {
    "rust": "soak",
    "docker": "system",
    "browser": "system",
    "npm": "world",
    "go": "world",
    "maven": "world",
    "nginx": "world",
    "haproxy": "world",
    "caddy": "world",
    "prometheus": "world",
    "curl": "process",
    "make": "process",
    "python311": "process",
}
"""The kind of tests that need a tool; the first one counts."""

_OPENERS = frozenset(
    [
        "bind_listeners",
        "create_connection",
        "create_server",
        "create_subprocess_exec",
        "doctor",
        "fork",
        "multiprocessing",
        "open_connection",
        "open_session",
        "run_gateway",
        "socket",
        "start_server",
        "start_unix_server",
        "subprocess",
        "ClientSession",
        "EventSource",
        "Server",
        "TCPSite",
        "TestServer",
        "ThreadingHTTPServer",
        "UnixConnector",
    ]
)
"""Names of modules, functions and classes that open sockets or start processes."""

_WATCHED = frozenset({"os.fork", "os.posix_spawn", "socket.bind", "socket.connect", "subprocess.Popen"})
_seen: list[str] | None = None


def kind_of(item: pytest.Item) -> str:
    """Return the kind of a test. A mark on the test or its module wins over its folder, the folder over tools and calls."""
    for mark in item.iter_markers():
        if mark.name in KINDS:
            return mark.name
    folder = item.nodeid.split("/")[1]
    if folder in _PLACES:
        return _PLACES[folder]
    for tool, kind in _TOOLS.items():
        if item.get_closest_marker(tool):
            return kind
    return "process" if any(map(opens, _called(item))) else "unit"


def may_have_units(folder: str) -> bool:
    """Whether a folder of tests may have some of kind unit."""
    return folder not in _PLACES


def _called(item: pytest.Item) -> Iterator[object]:
    assert isinstance(item, pytest.Function)
    yield item.function
    if (callspec := getattr(item, "callspec", None)) is not None:
        yield from callspec.params.values()
    for definitions in item._fixtureinfo.name2fixturedefs.values():
        yield from (definition.func for definition in definitions)


def opens(thing: object) -> bool:
    """Whether a function or class of the tests names something that opens sockets or starts processes, itself or in what it calls."""
    return _search(thing, set())


def _search(thing: object, visited: set[int]) -> bool:
    while isinstance(thing, functools.partial):
        thing = thing.func
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if id(thing) in visited or not str(getattr(thing, "__module__", "")).startswith("tests."):
        return False
    visited.add(id(thing))
    if isinstance(thing, type):
        return any(_search(each, visited) for kind in thing.__mro__ for each in vars(kind).values())
    if isinstance(thing, property):
        return _search(thing.fget, visited)
    if not isinstance(thing, FunctionType):
        return False
    names = set(_names(thing.__code__))
    return bool(names & _OPENERS) or any(_search(thing.__globals__.get(name), visited) for name in names)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Yield a list that grows by each socket that is bound or connected, and by each process that is started, in the block."""
    global _seen
    _hook()
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


@functools.cache
def _hook() -> None:
    def note(event: str, _arguments: tuple[object, ...]) -> None:
        if _seen is not None and event in _WATCHED:
            _seen.append(event)

    sys.addaudithook(note)
