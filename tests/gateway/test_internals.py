"""An aiohttp that is not as the fast path needs it is noticed, told once, and used by its documented interface."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from gateway.http import internals
from tests.kit import routed_gateway
from tests.kit.downstream import Downstream, End
from tests.kit.stack import CHANGED_AIOHTTP, QUICK_START
from tests.kit.upstream import ScriptedUpstream

ATTRIBUTES = [(place, name) for place, names in internals.ATTRIBUTES.items() for name in names]


def find(place: str) -> Any:
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def test_installed_aiohttp_is_as_expected() -> None:
    assert internals.look() == []


@pytest.mark.parametrize("place", internals.ATTRIBUTES)
def test_missing_name_is_found(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    module, _, name = place.partition(":")
    monkeypatch.delattr(importlib.import_module(module), name)
    assert f"{module} has no {name}" in internals.look()


def owner_of(place: str) -> tuple[Any, str]:
    """Return the class or module that has a function, and the name of the function."""
    module, _, path = place.partition(":")
    owner, _, name = path.rpartition(".")
    return (find(f"{module}:{owner}") if owner else importlib.import_module(module)), name


@pytest.mark.parametrize("place", internals.FUNCTIONS)
def test_renamed_function_is_found(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    owner, name = owner_of(place)
    for base in getattr(owner, "__mro__", (owner,)):
        if name in vars(base):
            monkeypatch.delattr(base, name)
    assert f"{place} is no function with a signature" in internals.look()


@pytest.mark.parametrize("place", internals.FUNCTIONS)
def test_function_with_other_parameters_is_found(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    owner, name = owner_of(place)
    monkeypatch.setattr(owner, name, lambda: None)
    assert f"{place} takes no {', '.join(internals.FUNCTIONS[place])}" in internals.look()


@pytest.mark.parametrize(("place", "name"), ATTRIBUTES)
def test_renamed_attribute_is_found(monkeypatch: pytest.MonkeyPatch, place: str, name: str) -> None:
    for base in find(place).__mro__[:-1]:
        if name in vars(base):
            monkeypatch.delattr(base, name)
        for setter in ("__init__", "start"):
            if setter in vars(base):
                monkeypatch.setattr(base, setter, lambda *_, **__: None)
    assert f"instances of {place} have no {name}" in internals.look()


def test_parser_that_does_not_feed_the_payload_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def feed_data(self, data: bytes) -> tuple[list[object], bool, bytes]:
            return [], False, b""

    monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", Silent)
    [fault] = internals.look()
    assert fault.startswith("parser feeds the payload")


def test_server_that_does_not_queue_malformed_bytes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.web_protocol.RequestHandler.data_received", lambda self, data: None)
    [fault] = internals.look()
    assert fault.startswith("server queues requests and errors")


async def test_gateway_that_lacks_a_name_warns_once_and_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(QUICK_START, "PYTHONPATH", str(CHANGED_AIOHTTP))
    monkeypatch.setenv("AIOHTTP_WITHOUT", "aiohttp.http:HttpRequestParser")
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        ScriptedUpstream([head + b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"]) as upstream,
        routed_gateway.running([{"path": "/", "upstream": upstream.url}], tmp_path) as gateway,
    ):
        for _ in range(2):
            async with Downstream(gateway.port) as downstream:
                await downstream.ask("/")
                answer = await downstream.answer()
                assert (await answer.to_end(), answer.end) == (b"data: 1\n\n", End.COMPLETE)
    warnings = [fact for fact in gateway.process.log() if fact["level"] == "warning"]
    assert [(fact["event"], fact["changes"]) for fact in warnings] == [
        ("aiohttp has changed, using its documented interface, slower", ["aiohttp.http has no HttpRequestParser"])
    ]
