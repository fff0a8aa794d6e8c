"""Start services by forking a process that has imported them: most of the CPU time of a start is for the imports.

`service_command` makes commands that begin with `FORKED` in place of the interpreter. A forked service is a child of the test's process
like any other; what differs is its `/proc/PID/cmdline` and `environ`, and what it shares of its memory. A server is made for the second
start of a service. The others are plain, and so are starts with a variable that the server's imports have read with another value.
"""

import ctypes
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORKED = "python, forked"
SERVICES = ("consumer", "gateway", "producer")
_REPOSITORY = str(Path(__file__).parents[2])
_READ_BY_C = ("GLIBC_", "LANG", "LC_", "LD_", "MALLOC_", "OPENSSL_", "PYTHON", "SSL_", "TZ")
"""Beginnings of variables that the interpreter and the libraries below it read when they start."""
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # only Linux has it
_PR_SET_CHILD_SUBREAPER = 36
_start = subprocess.Popen._execute_child  # type: ignore[attr-defined]


class _Server:
    """A process that has imported a service, seen from the test's process."""

    def __init__(self, preloaded: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.kit.fork_server", str(theirs.fileno()), *preloaded]
            self._process = subprocess.Popen(command, cwd=_REPOSITORY, env=self._environ, pass_fds=[theirs.fileno()])
        self._read: set[str] = set(json.loads(self._control.recv(2**20)))

    def fits(self, environ: Mapping[str, str]) -> bool:
        """Whether `environ` differs only in variables that nothing has read yet."""
        changed = {name for name, _ in environ.items() ^ self._environ.items()}
        return not (changed & self._read) and not any(name.startswith(_READ_BY_C) for name in changed)

    def start(self, request: dict[str, object], files: list[int]) -> int:
        """Return the process ID of a new child of this process."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # the child of the server's child becomes ours when its parent exits
        socket.send_fds(self._control, [json.dumps(request).encode()], files)
        pid = int(self._control.recv(100))
        self._control.recv(100)  # its parent has exited
        _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        return pid


_lock = threading.Lock()
_servers: dict[tuple[str, ...], _Server | None] = {}


def _server_for(command: list[str], asked: Mapping[str, Any]) -> tuple[_Server | None, list[str]]:
    """Return the server that may fork this start, and the arguments of the service."""
    environ = asked["env"]
    preloaded = command[:3] if command[0] == "tests.kit.with_constants" else command[:1]
    here = str(asked["cwd"] or Path.cwd()) == _REPOSITORY
    if _prctl is None or preloaded[-2:][0] not in SERVICES or asked["preexec_fn"] or environ is None or not here:
        return None, []
    key = tuple(preloaded)
    server = _servers[key] = (_servers[key] or _Server(key, environ)) if key in _servers else None
    return (server if server is not None and server.fits(environ) else None), command[len(preloaded) :]


def _execute_child(self: "subprocess.Popen[Any]", *positional: Any) -> None:
    """Fork a command that begins with FORKED, if possible, and start any other as before."""
    bound = inspect.signature(_start).bind(self, *positional)
    asked = bound.arguments
    if isinstance(asked["args"], str | bytes | os.PathLike) or asked["args"][0] != FORKED:
        _start(self, *positional)
        return
    command = list(map(os.fspath, asked["args"][2:]))
    with _lock:
        server, arguments = _server_for(command, asked)
        if server is None:
            asked["args"] = [sys.executable, "-m", *command]
            _start(*bound.args)
            return
        sys.audit("subprocess.Popen", FORKED, asked["args"], asked["cwd"], asked["env"])
        pipes = [asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        files = [number if handle < 0 else handle for number, handle in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = {"arguments": arguments, "environ": dict(asked["env"]), "session": asked["start_new_session"]}
        self.pid = server.start(request, files)
    self._child_created = True  # type: ignore[attr-defined]
    self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]  # asyncio starts its processes by this class too


def _serve(control: socket.socket) -> dict[str, Any]:
    """Return in each process that is to become a service what was asked for. Exit when the test's process has closed its end."""
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the services and the test's process
    while True:
        message, files, _, _ = socket.recv_fds(control, 2**20, 3)
        if not message:
            sys.exit()
        child = os.fork()
        if child == 0:
            if pid := os.fork():
                control.send(b"%d" % pid)
                os._exit(0)
            control.close()
            signal.signal(signal.SIGINT, interrupted)
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return dict(json.loads(message))
        for file in files:
            os.close(file)
        os.waitpid(child, 0)
        control.send(b"exited")


def _preload(preloaded: list[str]) -> tuple[str, set[str]]:
    """Import a service. Return its name, and the variables that were read meanwhile."""
    importlib.import_module("wsgiref.handlers")  # copies all variables, for CGI; prometheus_client imports it
    read: set[str] = set()
    get = os._Environ.__getitem__

    def note(environ: Any, name: str) -> str:
        read.add(name)
        return get(environ, name)

    os._Environ.__getitem__ = note  # type: ignore[assignment, method-assign]
    if preloaded[1:]:
        importlib.import_module(preloaded.pop(0)).apply(json.loads(preloaded.pop()))
    [service] = preloaded
    importlib.import_module(f"{service}.__main__")
    del sys.modules[f"{service}.__main__"]  # it is run, not imported
    os._Environ.__getitem__ = get  # type: ignore[method-assign]
    return service, read


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    service, read = _preload(sys.argv[2:])
    assert threading.active_count() == 1
    control.send(json.dumps(sorted(read)).encode())
    request = _serve(control)
    os.environ.clear()
    os.environ.update(request["environ"])
    if request["session"]:
        os.setsid()
    sys.argv[1:] = request["arguments"]
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
