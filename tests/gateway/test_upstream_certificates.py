"""Whom a route trusts and what it shows to its upstream: keys that make sense, every mode, workers, reloads, and refusals that help."""

import json
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gateway.policy.route_table import RouteChanges, RouteError, RouteTable, routes_of
from tests.kit.blocking_upstream import BlockingUpstream, Connection
from tests.kit.certificates import Authority, Certificate
from tests.kit.gateway_process import GatewayProcess, start_gateway
from tests.kit.upstream import EVENT_STREAM_HEAD, LAST_CHUNK, Asked, Script, ScriptedUpstream, chunk

HTTPS = "https://127.0.0.1:9"


def table(**keys: str) -> RouteTable:
    return routes_of([{"path": "/", "upstream": HTTPS} | keys])


Files = Callable[[Path, Authority], dict[str, str]]


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def certified(certificate: Certificate, **keys: str) -> dict[str, str]:
    return {"client_certificate_file": str(certificate.file), "client_key_file": str(certificate.key_file)} | keys


BAD_FILES: dict[str, tuple[Files, list[str]]] = {
    "no such file": (lambda path, _: {"ca_file": str(path / "none.pem")}, ["ca_file = ", "none.pem", "cannot be read: No such file"]),
    "a directory": (lambda path, _: {"ca_file": str(path)}, ["ca_file", "cannot be read: Is a directory"]),
    "not PEM": (lambda path, _: {"ca_file": written(path / "a", b"junk")}, ["ca_file", "no PEM certificate", "BEGIN CERTIFICATE"]),
    "a broken certificate": (
        lambda path, _: {"ca_file": written(path / "a", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
        ["ca_file", "malformed certificate"],
    ),
    "plain HTTP": (
        lambda _, authority: {"upstream": "http://127.0.0.1:9", "ca_file": str(authority.file)},
        ["ca_file needs an https upstream", "'http://127.0.0.1:9'"],
    ),
    "a key alone": (
        lambda _, authority: {"client_key_file": str(authority.issue("alone", client=True).key_file)},
        ["client_key_file needs client_certificate_file"],
    ),
    "a certificate alone": (
        lambda _, authority: {"client_certificate_file": str(authority.issue("alone", client=True).file)},
        ["client_certificate_file", "no PEM private key", "name the file that has it with client_key_file"],
    ),
    "another key": (
        lambda _, authority: certified(
            authority.issue("one", client=True), client_key_file=str(authority.issue("two", client=True).key_file)
        ),
        ["client_key_file", "two.key", "does not match the certificate in", "one.pem"],
    ),
    "an encrypted key": (
        lambda _, authority: certified(authority.issue("locked", client=True, password=b"secret")),
        ["client_key_file", "is encrypted", "openssl pkey"],
    ),
    "a key for a certificate": (
        lambda _, authority: certified(
            authority.issue("swapped", client=True), client_certificate_file=str(authority.issue("swapped", client=True).key_file)
        ),
        ["client_certificate_file", "no PEM certificate"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_that_cannot_be_used_stop_the_start_and_say_why(case: str, tmp_path: Path, authority: Authority) -> None:
    keys, expected = BAD_FILES[case]
    with pytest.raises(RouteError) as refusal:
        table(**keys(tmp_path, authority))
    assert [part for part in ["route 1 (/)", *expected] if part not in str(refusal.value)] == [], str(refusal.value)


def test_certificate_and_key_may_be_in_one_file(tmp_path: Path, authority: Authority) -> None:
    client = authority.issue("client", client=True)
    both = written(tmp_path / "both.pem", client.file.read_bytes() + client.key_file.read_bytes())
    assert isinstance(table(client_certificate_file=both).routes[0].tls, ssl.SSLContext)


def test_route_without_files_trusts_the_authorities_of_the_process() -> None:
    assert table().routes[0].tls is True


def test_file_with_another_content_is_another_route_and_another_shared_stream(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "ca.pem"
    keys = {"ca_file": written(file, authority.file.read_bytes()), "mode": "shared"}
    first, same = table(**keys), table(**keys)
    assert RouteChanges.between(first, same) == RouteChanges()
    assert first.routes[0].stream_kind == same.routes[0].stream_kind
    written(file, Authority(tmp_path, "successor").file.read_bytes())
    renewed = table(**keys)
    assert RouteChanges.between(first, renewed) == RouteChanges(changed=("/",))
    assert first.routes[0].stream_kind != renewed.routes[0].stream_kind


MODES = ("direct", "shared", "resumable")


def config(path: Path, upstream: str, **keys: str) -> str:
    """Write a file of one route per mode, and return its name."""
    tables = [
        {"path": f"/{mode}", "mode": mode, "upstream": upstream, "heartbeat_seconds": "0", "connect_timeout_seconds": "0.5"} | keys
        for mode in MODES
    ]
    for each in tables:
        each |= {"wait_seconds": "0"} if each["mode"] == "shared" else {"methods": '["GET"]'}
    numbers = ("heartbeat_seconds", "connect_timeout_seconds", "wait_seconds", "methods")
    lines = ["\n".join(f"{key} = {value if key in numbers else json.dumps(value)}" for key, value in each.items()) for each in tables]
    path.write_text("".join(f"[[routes]]\n{each}\n" for each in lines))
    return str(path)


def one_event(asked: Asked) -> Script:
    """Answer each request with one event; a stream that reconnects with its ID is told that there is no more."""
    if asked.header("Last-Event-ID"):
        return [b"HTTP/1.1 204 No Content\r\n\r\n"]
    return [EVENT_STREAM_HEAD + chunk(b"id: 1\ndata: seen\n\n") + LAST_CHUNK]


async def seen(gateway: GatewayProcess, mode: str) -> tuple[int, str]:
    """Return the status of an answer, and what it says: of a stream its first event, else the whole of it."""
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        http.stream("GET", f"{gateway.url}/{mode}", headers={"Accept": "text/event-stream"}) as answer,
    ):
        if answer.status_code != 200:
            return answer.status_code, (await answer.aread()).decode()
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                return answer.status_code, line
    raise AssertionError("the stream has no event")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_every_mode_trusts_the_authority_and_shows_the_certificate(tmp_path: Path, authority: Authority, workers: str) -> None:
    context = authority.issue("upstream").server_context(client_authority=authority.file)
    keys = certified(authority.issue("client", client=True), ca_file=str(authority.file))
    async with ScriptedUpstream(one_event, tls=context) as upstream:
        settings = {"CONFIG": config(tmp_path / "routes.toml", upstream.url, **keys), "DATA_DIR": str(tmp_path / "data")}
        async with start_gateway(WORKERS=workers, **settings) as gateway:
            for mode in MODES:
                assert await seen(gateway, mode) == (200, "data: seen"), mode


REFUSALS: dict[str, tuple[Callable[[Authority, Path], tuple[ssl.SSLContext | None, dict[str, str]]], list[str]]] = {
    "an unknown authority": (
        lambda authority, path: (Authority(path, "stranger").issue("upstream").server_context(), {"ca_file": str(authority.file)}),
        ["certificate verify failed: unable to get local issuer certificate", "with ca_file"],
    ),
    "an expired certificate": (
        lambda authority, _: (
            authority.issue("expired", lifetime=timedelta(hours=-1)).server_context(),
            {"ca_file": str(authority.file)},
        ),
        ["certificate verify failed: certificate has expired"],
    ),
    "another host's certificate": (
        lambda authority, _: (authority.issue("other", hosts=("other.example",)).server_context(), {"ca_file": str(authority.file)}),
        ["certificate verify failed: it is not for this host"],
    ),
    "no client certificate": (
        lambda authority, _: (
            authority.issue("upstream").server_context(client_authority=authority.file),
            {"ca_file": str(authority.file)},
        ),
        ["certificate required", "client_certificate_file"],
    ),
    "plain HTTP": (lambda authority, _: (None, {"ca_file": str(authority.file)}), ["TLS: ", "does not speak TLS", "http://"]),
}


def refuse(connection: Connection) -> None:
    """Play a server that takes a TLS handshake for a bad request, and says nothing to a good one."""
    connection.read()
    connection.end(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("case", REFUSALS)
async def test_refusal_names_the_tls_error_and_its_remedy(case: str, tmp_path: Path, authority: Authority) -> None:
    make, expected = REFUSALS[case]
    context, keys = make(authority, tmp_path)
    with BlockingUpstream(refuse, context).running() as upstream:
        address = upstream.url.partition("://")[2]
        settings = {"CONFIG": config(tmp_path / "routes.toml", f"https://{address}", **keys), "DATA_DIR": str(tmp_path / "data")}
        async with start_gateway(**settings) as gateway:
            for mode in MODES:
                status, body = await seen(gateway, mode)
                assert status == 502
                detail = json.loads(body)["detail"]
                logged = (await gateway.log_line("no answer"))["detail"]
                for said in (detail, logged):
                    assert [part for part in expected if part not in said] == [], (mode, said)
                assert address not in detail


async def test_reload_takes_files_that_were_renewed(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    written(file, old.file.read_bytes())
    async with ScriptedUpstream(one_event, tls=new.issue("upstream").server_context()) as upstream:
        settings = {"CONFIG": config(tmp_path / "routes.toml", upstream.url, ca_file=str(file)), "DATA_DIR": str(tmp_path / "data")}
        async with start_gateway(**settings) as gateway, httpx.AsyncClient(trust_env=False, base_url=gateway.admin) as admin:
            assert [(await seen(gateway, mode))[0] for mode in MODES] == [502, 502, 502]
            assert (await admin.post("/reload")).json()["changed"] == []
            written(file, new.file.read_bytes())
            assert (await admin.post("/reload")).json()["changed"] == ["/direct", "/resumable", "/shared"]
            assert [await seen(gateway, mode) for mode in MODES] == [(200, "data: seen")] * 3
            file.unlink()
            refusal = await admin.post("/reload")
            assert refusal.status_code == 422
            assert "cannot be read" in refusal.json()["detail"]
            assert (await seen(gateway, "direct"))[0] == 200


async def test_process_trusts_the_ssl_cert_file(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.kit.stack.QUICK_START", {"SSL_CERT_FILE": str(authority.file)})
    async with ScriptedUpstream(one_event, tls=authority.issue("upstream").server_context()) as upstream:
        settings = {"CONFIG": config(tmp_path / "routes.toml", upstream.url), "DATA_DIR": str(tmp_path / "data")}
        async with start_gateway(**settings) as gateway:
            assert [await seen(gateway, mode) for mode in MODES] == [(200, "data: seen")] * 3
