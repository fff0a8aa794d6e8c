"""Each test has one kind, and the kinds are what they say."""

import asyncio
import functools
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.kit.kinds import KINDS, opens, watched
from tests.kit.upstream import ScriptedUpstream, chunk


def test_each_test_has_exactly_one_kind(request: pytest.FixtureRequest) -> None:
    kinds = {item.nodeid: [mark.name for mark in item.iter_markers() if mark.name in KINDS] for item in request.session.items}
    assert {name: found for name, found in kinds.items() if len(found) != 1} == {}


def ask(url: str) -> ScriptedUpstream:
    return ScriptedUpstream([url.encode()])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (ScriptedUpstream, True),
        (ask, True),
        (functools.partial(ask, "url"), True),
        (lambda: [ask(url) for url in "ab"], True),
        (lambda: subprocess.run(["true"]), True),
        (chunk, False),
        (subprocess.run, False),  # a parameter: only the tests' own code is searched
    ],
)
def test_use_of_sockets_or_processes_is_found(thing: Callable[..., object], expected: bool) -> None:
    assert opens(thing) is expected


def test_socket_and_process_are_noted_while_watched() -> None:
    with watched() as seen, socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        subprocess.run([sys.executable, "-c", ""], check=True)
    assert seen == ["socket.bind", "socket.connect", "subprocess.Popen"]


async def test_event_loop_alone_is_not_noted() -> None:
    with watched() as seen:
        await asyncio.to_thread(len, "")
        asyncio.new_event_loop().close()
    assert seen == []
