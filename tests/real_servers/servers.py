"""Common servers, each with the same paths, over plain HTTP and over TLS.

    /<server>/<mode>/events   an event stream, by GET or POST
    /<server>/<mode>/refusal  429, typed text/event-stream, with a body of JSON
    /go?key=                  allows the streams of `key` one more event
    /state?key=               the number of streams of `key` that were opened, and that their client left before their end

The query of an event stream: events up to `count`, each with its number as id and `size` bytes of data, begin after the request's
Last-Event-ID. Those up to `burst` are sent at once. The others wait for a signal each, or with `tick` for that number of milliseconds.
With `close` the end of the connection delimits the body, where the server can do that.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.kit.builds import built
from tests.kit.certificates import Certificate
from tests.kit.stack import START_SECONDS, clean_environment
from tests.kit.waiting import wait_until

SOURCES = Path(__file__).parent

Tls = Certificate | None


@dataclass(frozen=True)
class Kind:
    """How to build and start a server."""

    name: str
    command: Callable[[Path, int, Tls], list[str]]
    """A function that returns the command for the directory of its build, its port and its certificate."""
    sources: str = "python"
    build: tuple[tuple[str, ...], ...] = ()
    marks: tuple[str, ...] = ()
    """The marks of the tools that it needs."""
    watches: bool = True
    """Whether it notices that its client has left while it writes nothing."""
    delimits_by_close: bool = False
    """Whether it supports `close`."""

    def folder(self) -> Path:
        return built("real_servers", SOURCES / self.sources, *self.build) if self.build else SOURCES / self.sources


def _uvicorn(folder: Path, port: int, tls: Tls) -> list[str]:
    secure = ["--ssl-certfile", str(tls.file), "--ssl-keyfile", str(tls.key_file)] if tls else []
    return [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning", *secure, "fastapi_server:app"]


def _gunicorn(folder: Path, port: int, tls: Tls) -> list[str]:
    secure = ["--certfile", str(tls.file), "--keyfile", str(tls.key_file)] if tls else []
    options = ["--bind", f"127.0.0.1:{port}", "--threads", "16", "--keep-alive", "0", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", *options, *secure, "flask_server:app"]


def _daphne(folder: Path, port: int, tls: Tls) -> list[str]:
    endpoint = f"ssl:{port}:interface=127.0.0.1:privateKey={tls.key_file}:certKey={tls.file}" if tls else f"tcp:{port}:interface=127.0.0.1"
    return [sys.executable, "-m", "daphne", "-v", "0", "-e", endpoint, "django_server:application"]


def _spring(kind: str) -> Callable[[Path, int, Tls], list[str]]:
    def command(folder: Path, port: int, tls: Tls) -> list[str]:
        quick = ["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:+UseSerialGC", "-Xmx256m"]
        secure = [f"--server.ssl.certificate=file:{tls.file}", f"--server.ssl.certificate-private-key=file:{tls.key_file}"] if tls else []
        options = ["--server.address=127.0.0.1", f"--server.port={port}", f"--spring.main.web-application-type={kind}", *secure]
        return ["java", *quick, "-cp", f"{folder}/target/classes:{folder}/target/dependency/*", "servers.Application", *options]

    return command


_NPM = (("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"),)
_GO = (("go", "build", "-o", "bin/", "./nethttp", "./fiber"),)
_MAVEN = (("mvn", "--quiet", "--batch-mode", "package", "dependency:copy-dependencies"),)
_CARGO = (("cargo", "build", "--quiet"),)

KINDS = (
    Kind("fastapi", _uvicorn),
    Kind("flask", _gunicorn, watches=False),
    Kind("django", _daphne),
    Kind("tornado", lambda folder, port, tls: [sys.executable, "tornado_server.py"]),
    Kind("express", lambda folder, port, tls: ["node", "express.js"], "node", _NPM, ("npm",), delimits_by_close=True),
    Kind("hono", lambda folder, port, tls: ["node", "hono.js"], "node", _NPM, ("npm",)),
    Kind("mvc", _spring("servlet"), "spring", _MAVEN, ("maven",), watches=False),
    Kind("webflux", _spring("reactive"), "spring", _MAVEN, ("maven",)),
    Kind("nethttp", lambda folder, port, tls: [f"{folder}/bin/nethttp"], "go", _GO, ("go",), delimits_by_close=True),
    Kind("fiber", lambda folder, port, tls: [f"{folder}/bin/fiber"], "go", _GO, ("go",), watches=False),
    Kind("axum", lambda folder, port, tls: [f"{folder}/target/debug/axum_server"], "rust", _CARGO, ("rust", "soak")),
    Kind("actix", lambda folder, port, tls: [f"{folder}/target/debug/actix_server"], "rust", _CARGO, ("rust", "soak"), watches=False),
)


SCHEMES = ("plain", "tls")


def names(which: Callable[[Kind], bool] = lambda kind: True) -> list[object]:
    """Return the names of the servers as parameters, with the marks of their tools."""
    return [
        pytest.param(f"{kind.name}-{scheme}", marks=[getattr(pytest.mark, mark) for mark in kind.marks], id=f"{kind.name}-{scheme}")
        for kind in KINDS
        if which(kind)
        for scheme in SCHEMES
    ]


class Server:
    """A server on a port of its own, which can be killed and started again."""

    def __init__(self, name: str, kind: Kind, port: int, tls: Tls, output: Path) -> None:
        self.name = name
        self.kind = kind
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self._tls = tls
        self._port = port
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        folder = self.kind.folder()
        environ = {"PORT": str(self._port), "PYTHONDONTWRITEBYTECODE": "1"}
        if self._tls:
            environ |= {"CERTIFICATE": str(self._tls.file), "KEY": str(self._tls.key_file)}
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self.kind.command(folder, self._port, self._tls),
                cwd=folder,
                env=clean_environment(**environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its child processes are killed with it
            )
        wait_until(self._answers, f"{self.name} answers; its output: {self._output}", START_SECONDS)

    def kill(self) -> None:
        """Crash it by SIGKILL."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.name} exited with {self._process.returncode}:\n{self._output.read_text()[-3000:]}"
        try:
            return httpx.get(f"{self.url}/state?key=start", trust_env=False, verify=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False
