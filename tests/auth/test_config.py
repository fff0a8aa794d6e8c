"""Test the errors for wrong `auth` tables: they explain, and never show the secret."""

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.policy.auth_table import Auth
from gateway.policy.route_table import RouteError, read_routes
from gateway.policy.routes import Route
from gateway.server.command_line import hash_key
from tests.auth.conftest import table
from tests.auth.signing import SECRET, private_key, public_pem
from tests.kit.documentation import DOCUMENTATION

PLANTED = "planted-s3cret-0123456789-abcdefghij"
DIGEST = hashlib.sha256(PLANTED.encode()).hexdigest()
KEY = {"name": "shop", "sha256": DIGEST}


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", SECRET)
    monkeypatch.setenv("SHORT", "short")
    monkeypatch.setenv("PEM", public_pem("RS256").decode())


def write(tmp_path: Path, auth: dict[str, Any], **keys: object) -> Path:
    file = tmp_path / "routes.toml"
    file.write_text(table({"path": "/x", "upstream": "http://127.0.0.1:1"} | keys | {"auth": auth}))
    return file


def refused(tmp_path: Path, auth: dict[str, Any], **keys: object) -> str:
    with pytest.raises(RouteError) as error:
        read_routes(write(tmp_path, auth, **keys))
    assert PLANTED not in str(error.value)
    assert "s3cret" not in str(error.value)
    return str(error.value)


JWT = {"kind": "jwt", "secret_env": "TOKEN_SECRET"}
KEYS = {"kind": "api-keys"}


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"kind": "password"}, "auth.kind = 'password': Input should be 'none', 'api-keys' or 'jwt'"),
        ({"knid": "jwt"}, "unknown key 'auth.knid', the nearest is 'kind'; allowed are kind, keys, secret_env"),
        ({"secret_env": "TOKEN_SECRET"}, "auth: secret_env requires kind = 'jwt', got kind = 'none'"),
        ({"cookie": "x"}, "auth: cookie requires kind = 'api-keys or jwt', got kind = 'none'"),
        (JWT | {"keys": [KEY]}, "auth: keys requires kind = 'api-keys'"),
        ({"kind": "jwt"}, "exactly one of secret_env, secret_file, public_key_file, jwks_url is required, got none"),
        (JWT | {"jwks_url": "https://x/"}, "is required, got secret_env and jwks_url"),
        (JWT | {"secret": PLANTED}, "auth.secret: do not put secrets into this file; name an environment variable or a file with s"),
        (JWT | {"hmac_key": PLANTED}, "auth.hmac_key: do not put secrets into this file"),
        ({"kind": "jwt", "secret_env": PLANTED}, "secret_env: must be the name of an environment variable: capitals, digits and _; do not"),
        ({"kind": "jwt", "secret_env": "NOT_SET"}, "secret_env: the environment variable NOT_SET is not set"),
        ({"kind": "jwt", "secret_file": PLANTED}, "secret_file: must be the path of a file, with a slash"),
        ({"kind": "jwt", "secret_file": f"a/{PLANTED}"}, "secret_file: cannot read the file: No such file or directory"),
        ({"kind": "jwt", "secret_env": "SHORT"}, "secret_env: HS256 needs a secret of at least 32 bytes, got 5"),
        (JWT | {"algorithms": ["HS512"]}, "secret_env: HS512 needs a secret of at least 64 bytes, got 42"),
        ({"kind": "jwt", "secret_env": "PEM"}, "secret_env: must be a shared secret, got a PEM key or certificate"),
        (JWT | {"algorithms": ["none"]}, "auth.algorithms.0 = 'none': Input should be 'HS256'"),
        (JWT | {"algorithms": ["HS256", "RS256"]}, "algorithms has RS256, which does not fit the key; allowed are HS256, HS384, HS512"),
        ({"kind": "jwt", "jwks_url": "https://x/", "algorithms": ["HS256"]}, "algorithms has HS256, which does not fit the key"),
        ({"kind": "jwt", "jwks_url": "https://user:s3cret@x/"}, "auth.jwks_url: must be an http or https URL without credentials"),
        ({"kind": "jwt", "jwks_url": "https://x/", "jwks_keep_seconds": 60}, "auth.jwks_keep_seconds is no longer a setting: keys are"),
        ({"kind": "jwt", "jwks_url": "ftp://x/"}, "auth.jwks_url: must be an http or https URL"),
        ({"kind": "jwt", "public_key_file": "/dev/null"}, "public_key_file: /dev/null is empty"),
        (JWT | {"leeway_seconds": -1}, "auth.leeway_seconds = -1: Input should be greater than or equal to 0"),
        (JWT | {"cookie": "a b"}, "auth.cookie = 'a b': must be a name without blanks"),
        (JWT | {"query_parameter": "a=b"}, "auth.query_parameter = 'a=b': must be letters"),
        (JWT | {"cookie": "a", "cookie_origins": ["https://x/"]}, "'https://x/' is not an origin"),
        (JWT | {"cookie_origins": ["https://x"]}, "cookie_origins requires cookie, which is not set"),
        (KEYS, "kind = 'api-keys' needs at least one [[routes.auth.keys]]"),
        (KEYS | {"keys": [{"name": "a"}]}, "auth.keys.0: exactly one of sha256, key_env, key_file is required, got none"),
        (KEYS | {"keys": [{"name": "a", "sha256": PLANTED}]}, "auth.keys.0.sha256: must be 64 hexadecimal digits, the SHA-256 of"),
        (KEYS | {"keys": [{"name": "a", "key": PLANTED}]}, "auth.keys.0.key: do not put secrets into this file; name an"),
        (KEYS | {"keys": [{"name": "a", "key_env": "SHORT"}]}, "key_env: an API key must have at least 16 characters"),
        (KEYS | {"keys": [KEY, {"name": "other", "sha256": DIGEST.upper()}]}, "'shop' and 'other' have the same key"),
        (KEYS | {"keys": [KEY | {"grants": {"read": ["/a/**/b"]}}]}, "auth.keys.0.grants.read: entry 1 is not a valid path"),
        (KEYS | {"keys": [KEY | {"grants": {"reed": []}}]}, "unknown key 'auth.keys.0.grants.reed', the nearest is 'read'; allowed"),
        (KEYS | {"keys": [{"sha256": DIGEST}]}, "key 'auth.keys.0.name' is missing"),
    ],
    ids=lambda value: re.sub(r"[^a-z0-9 _]+", "", value)[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_invalid_table_stops_the_start_with_the_reason(tmp_path: Path, auth: dict[str, Any], says: str) -> None:
    message = refused(tmp_path, auth)
    assert says in message
    assert message.startswith(f"{tmp_path}/routes.toml: route 1 (/x): ")


def test_private_key_is_rejected_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "issuer.pem"
    file.write_bytes(private_key("ES256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "contains a private key, which must stay with the issuer" in refused(tmp_path, {"kind": "jwt", "public_key_file": str(file)})


def test_table_must_fit_its_route(tmp_path: Path) -> None:
    named = JWT | {"subject_header": "X-Subject"}
    assert "a shared stream has no single subject; add 'x-subject' to share_by" in refused(tmp_path, named, mode="shared")
    assert read_routes(write(tmp_path, named, mode="shared", share_by=["X-Subject"])).routes
    assert "share_by has 'authorization', which auth removes" in refused(tmp_path, JWT, mode="shared", share_by=["Authorization"])
    assert read_routes(write(tmp_path, JWT | {"forward": True}, mode="shared", share_by=["Authorization"])).routes


def test_secrets_are_read_together_with_the_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    file = write(tmp_path, {"kind": "jwt", "secret_file": str(secret)})
    first, again = read_routes(file).routes[0], read_routes(file).routes[0]
    assert first == again
    secret.write_text(SECRET + "-new")
    assert read_routes(file).routes[0] != first  # so that a reload detects the change
    assert first.auth is not None
    assert first.auth.key == SECRET.encode()
    assert SECRET not in repr(first)
    assert SECRET not in first.model_dump_json()


def test_every_key_of_the_table_is_documented() -> None:
    section = DOCUMENTATION.partition("## Authentication\n")[2].partition("\n## ")[0]
    for name, field in Auth.model_fields.items():
        assert field.description, name
        assert f"`{name}`" in section, name


def test_worker_reads_the_same_table_as_its_parent(tmp_path: Path) -> None:
    (route,) = read_routes(write(tmp_path, JWT | {"issuer": "https://a", "audience": ["b"]})).routes
    assert Route(**route.model_dump(mode="json", exclude_unset=True)) == route


def test_hash_key_makes_a_key_and_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert hash_key(["the shop"]) == 0
    out, err = capsys.readouterr()
    key = err.strip().rpartition(" ")[2]
    file = tmp_path / "routes.toml"
    file.write_text('[[routes]]\npath = "/"\nupstream = "http://h"\n[routes.auth]\nkind = "api-keys"\n' + out)
    auth = read_routes(file).routes[0].auth
    assert auth is not None
    assert [(each.name, each.digest) for each in auth.keys] == [("the shop", hashlib.sha256(key.encode()).hexdigest())]
    assert key not in out
    assert hash_key(["x"]) == 0
    assert key not in capsys.readouterr().err


@pytest.mark.parametrize(("key", "status"), [(PLANTED, 0), ("short", 2), ("has a blank in it, which is none", 2)])
def test_hash_key_takes_an_existing_key_and_does_not_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str, status: int
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{key}\n".encode())))
    assert hash_key(["shop", "--stdin"]) == status
    out, err = capsys.readouterr()
    assert key not in out + err.replace("`python -m gateway hash-key`", "")
    assert (hashlib.sha256(key.encode()).hexdigest() in out) is (status == 0)
