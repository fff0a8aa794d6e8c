"""Secrets that are planted all over a running stack appear in no log, metric, error or dashboard of any service."""

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import jwt
import pytest

from gateway.policy.secrets import digest_of
from tests.kit.stack import Stack, free_ports, run_stack
from tests.kit.waiting import wait_until

PLANTED = {
    name: f"planted-{name}-7f3a9c{number:02}d1"
    for number, name in enumerate(
        (
            "publish-key",
            "wrong-publish-key",
            "authorization",
            "cookie",
            "query",
            "body",
            "upstream-field",
            "wrong-api-key",
            "token-secret-which-is-longer-than-32-bytes",
            "consumer-field",
            "consumer-password",
            "consumer-query",
            "services-password",
        )
    )
}
API_KEY = "planted-api-key-of-the-consumer-7f3a9c99d1"
TOKEN = jwt.encode({"sub": "planted-subject", "exp": 4_102_444_800}, PLANTED["token-secret-which-is-longer-than-32-bytes"])
ROUTES = """
[[routes]]
path = "/"
request_headers = {{ "X-Upstream-Secret" = "{upstream_field}" }}

[[routes]]
path = "/sse"
mode = "resumable"

[[routes]]
path = "/topics/"
mode = "shared"
public = true
begin_parameters = ["from", "since", "last_event_id"]
private_parameters = ["limit", "follow"]
[routes.auth]
kind = "api-keys"
query_parameter = "api_key"
keys = [{{ name = "consumer", sha256 = "{digest}" }}]
# Publishing needs the key of the producer, too.
forward = true

[[routes]]
path = "/plain"
[routes.auth]
kind = "jwt"
secret_env = "TOKEN_SECRET"
query_parameter = "access_token"
cookie = "session"
grants_claim = ""
"""


@dataclass
class Planted:
    """The stack, and the output of its services."""

    stack: Stack
    url: str
    answers: list[str] = field(default_factory=list)
    """Heads and bodies of errors."""

    def ask(self, method: str, target: str, url: str = "", **options: object) -> httpx.Response:
        answer = httpx.request(method, (url or self.url) + target, trust_env=False, timeout=20, **options)  # type: ignore[arg-type]
        if answer.status_code >= 400:
            self.answers.append(f"{answer.headers!r}\n{answer.text}")
        return answer


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    directory = tmp_path_factory.mktemp("secrets")
    [port] = free_ports(1)
    (directory / "keys").write_text(f"{PLANTED['publish-key']},{API_KEY}\n")
    (directory / "fields").write_text(json.dumps({"X-API-Key": API_KEY, "X-Consumer-Secret": PLANTED["consumer-field"]}) + "\n")
    config = directory / "routes.toml"
    config.write_text(ROUTES.format(upstream_field=PLANTED["upstream-field"], digest=digest_of(API_KEY)))
    source = f"http://user:{PLANTED['consumer-password']}@127.0.0.1:{port}/topics/%3E/events?from=start&key={PLANTED['consumer-query']}"
    variables = {
        "PRODUCER_PUBLISH_KEYS_FILE": str(directory / "keys"),
        "PRODUCER_LOG_LEVEL": "debug",
        "GATEWAY_PORT": str(port),
        "GATEWAY_CONFIG": str(config),
        "GATEWAY_LOG_LEVEL": "debug",
        "CONSUMER_SOURCE_URL": source,
        "CONSUMER_SOURCE_HEADERS_FILE": str(directory / "fields"),
        "CONSUMER_RECONNECT_INITIAL_SECONDS": "0.1",
        "CONSUMER_LOG_LEVEL": "debug",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_SECRET", PLANTED["token-secret-which-is-longer-than-32-bytes"])
        with run_stack(directory, **variables) as stack:
            yield Planted(stack, f"http://127.0.0.1:{port}")


def use(planted: Planted) -> None:
    """Send each secret where it belongs, and where it does not."""
    fields = {"Authorization": f"Bearer {PLANTED['authorization']}", "Cookie": f"session={PLANTED['cookie']}"}
    query = f"?secret={PLANTED['query']}"
    events = "/topics/news/events"
    producer = planted.stack.producer.status_url
    publication = {"data": "an event", "type": "news"}
    assert planted.ask("POST", events, headers={"Authorization": f"Bearer {API_KEY}"}, json=publication).status_code == 201
    key = {"Authorization": f"Bearer {PLANTED['publish-key']}"}
    assert planted.ask("POST", events + query, producer, headers=key, json=publication).status_code == 201
    for wrong in ({}, {"Authorization": f"Bearer {PLANTED['wrong-publish-key']}"}, fields):
        assert planted.ask("POST", events + query, producer, headers=wrong, json=publication).status_code in (401, 403)
        assert planted.ask("POST", events + query, headers=wrong, json=publication).status_code == 401
    planted.ask("GET", f"{events}?api_key={PLANTED['wrong-api-key']}")
    planted.ask("GET", f"{events}?api_key={API_KEY}&follow=false&from=start")
    assert planted.ask("GET", f"/plain?access_token={TOKEN}&interval_ms=0").status_code == 200
    assert planted.ask("GET", f"/plain?access_token={TOKEN}x&interval_ms=0").status_code == 401
    planted.ask("GET", "/plain?interval_ms=0", headers=fields)
    for url in (planted.url, producer):
        planted.ask("GET", "/" + query + "&interval_ms=0", url, headers=fields)
        planted.ask("GET", "/nowhere" + query, url, headers=fields)
        planted.ask("PUT", "/" + query, url, headers=fields)
        planted.ask("POST", "/sse" + query, url, headers=fields, content=PLANTED["body"])
        planted.ask("POST", "/sse" + query + "&interval_ms=0", url, headers=fields, json={"message": "hi", "other": PLANTED["body"]})
        head = f"GET /{query}&interval_ms=0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        planted.answers.append(raw(url, f"{head}Authorization: {PLANTED['authorization']}\0\r\n\r\n"))
        planted.answers.append(raw(url, f"{head}Cookie: {PLANTED['cookie']}{'x' * 70_000}\r\n\r\n"))
    planted.ask("GET", "/streams/0123456789abcdef" + query, headers=fields)


def raw(url: str, request: str) -> str:
    """Send bytes and return the answer until the connection ends."""
    host, port = url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request.encode())
        while piece := connection.recv(65536):
            received += piece
    return received.decode(errors="replace")


def disturb(planted: Planted) -> None:
    """Break streams that carry secrets, so that failures are logged."""
    fields = {"Authorization": f"Bearer {PLANTED['authorization']}", "Cookie": f"session={PLANTED['cookie']}"}
    path = f"/?repeat=100&secret={PLANTED['query']}"
    with httpx.stream("GET", planted.url + path, headers=fields, trust_env=False) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        planted.stack.producer.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert planted.ask("GET", path, headers=fields).status_code == 502
    planted.stack.gateway.kill()
    wait_until(lambda: "not connected" in planted.stack.consumer.output.read_text(), "the consumer has lost its source")
    planted.stack.producer.start()
    planted.stack.gateway.start()
    planted.stack.producer.wait_until_ready()
    planted.stack.gateway.wait_until_ready()
    planted.stack.consumer.wait_until_ready()


def snapshot(admin: str) -> str:
    """Return what the dashboard gets first: a history, and a snapshot."""
    with httpx.stream("GET", admin + "/dashboard/events", trust_env=False, timeout=20) as answer:
        received = ""
        for piece in answer.iter_text():
            received += piece
            if "event: snapshot" in received and received.endswith("\n\n"):
                return received
    raise AssertionError(f"no snapshot in {received!r}")


def forms(secret: str) -> set[str]:
    """Return the encodings in which a secret could appear."""
    return {secret, quote(secret), base64.b64encode(secret.encode()).decode().rstrip("="), repr(secret.encode())[2:-1]}


def test_planted_secrets_appear_nowhere(planted: Planted) -> None:
    use(planted)
    disturb(planted)
    stack = planted.stack
    wait_until(lambda: "an event" in stack.consumer.output.read_text(), "the consumer got in with its key")
    places = {"answers": "\n".join(planted.answers), "dashboard": snapshot(stack.gateway.status_url)}
    for service in stack.services:
        places[f"log of the {service.name}"] = service.output.read_text()
        for path in ("/metrics", "/readyz", "/livez"):
            places[f"{path} of the {service.name}"] = httpx.get(service.status_url + path, trust_env=False).text
    places["settings of the pages"] = httpx.get(stack.gateway.status_url + "/pages/settings.json", trust_env=False).text
    assert len(planted.answers) > 20
    assert "bad request" in places["log of the gateway"]
    basic = base64.b64encode(f"user:{PLANTED['consumer-password']}".encode()).decode()
    secrets = {*PLANTED.values(), API_KEY, TOKEN, TOKEN.rpartition(".")[2], basic}
    found = [(place, secret) for place, text in places.items() for secret in secrets if any(form in text for form in forms(secret))]
    assert found == []
