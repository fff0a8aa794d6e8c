"""Tokens and key sets of any bytes: refused with what may be said, and never taken unless they are signed as they must be."""

import base64
import functools
import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import strategies as st

from gateway.access.authorization import Denied, _describe
from gateway.access.key_sets import _KeySet, _parse, _Unusable
from gateway.policy.auth_table import Auth
from gateway.policy.tokens import PUBLIC_ALGORITHMS, PublicKey, TokenRefused, TokenRules, algorithms_of, read_head, verify
from tests.auth.signing import OTHER_SECRET, SECRET, hs_token, private_key, public_jwk, token, unsigned_token
from tests.fuzz.fuzzing import TARGET, fuzz, joined, mutated

pytestmark = TARGET

ALGORITHMS = ("HS256", "ES256", "EdDSA", "RS256")
AUTHENTIC = b"authentic"
SCALARS = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        10**400,
        1e308,
        float("inf"),
        float("nan"),
        0.5,
        "",
        "0",
        "1e5",
        "9" * 5000,
        "\ud800",
        "\0",
        "x",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "keys", "read"]), inner, max_size=3),
    max_leaves=4,
)
HEAD_NAMES = ["alg", "kid", "typ", "cty", "crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc", "exp", ""]
CLAIM_NAMES = ["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "events", "azp", ""]
HEADS = st.dictionaries(st.sampled_from(HEAD_NAMES), VALUES | st.sampled_from([*ALGORITHMS, "none", "NONE", "HS384", "hs256"]), max_size=4)
CLAIMS = st.dictionaries(st.sampled_from(CLAIM_NAMES), VALUES | st.integers(int(time.time()) - 100, int(time.time()) + 10**6), max_size=5)
JSON_PIECES = [
    b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\u0000", b"\\ud800", b"\\", b"null", b"true", b"NaN", b"1e999", b"-", b"9" * 5000,
    b'"alg"', b'"kid"', b'"HS256"', b'"none"', b"[" * 5000, b'{"a":' * 3000, b"\xff", b"\xef\xbb\xbf", b"\xfe\xff\0{", b" ",
    b'{"alg":"HS256"}', b'{"alg":"HS256","alg":"none"}',
]  # fmt: skip
JWK_NAMES = ["kty", "crv", "x", "y", "n", "e", "d", "p", "k", "kid", "use", "key_ops", "alg", "x5c", "oth", ""]


def coded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def signed(head: bytes, claims: bytes, secret: str = SECRET) -> str:
    text = f"{coded(head)}.{coded(claims)}"
    return f"{text}.{coded(hmac.digest(secret.encode(), text.encode(), hashlib.sha256))}"


@functools.cache
def key_of(algorithm: str) -> bytes | PublicKey:
    if algorithm == "HS256":
        return SECRET.encode()
    key = private_key(algorithm, "fuzz").public_key()
    assert isinstance(key, PublicKey)
    return key


@functools.cache
def good_tokens() -> list[bytes]:
    return [
        hs_token().encode(),
        hs_token(OTHER_SECRET).encode(),
        *(token(name, "fuzz", kid="k").encode() for name in ALGORITHMS[1:]),
        unsigned_token().encode(),
    ]


def is_good(text: str, algorithm: str) -> bool:
    """Whether the signature is right, without anything of the gateway or of PyJWT."""
    begin, _, last = text.rpartition(".")
    signature = base64.urlsafe_b64decode(last + "=" * (-len(last) % 4))
    key = private_key(algorithm, "fuzz") if algorithm != "HS256" else None
    try:
        match key:
            case None:
                return hmac.compare_digest(signature, hmac.digest(SECRET.encode(), begin.encode(), hashlib.sha256))
            case ed25519.Ed25519PrivateKey():
                key.public_key().verify(signature, begin.encode())
            case ec.EllipticCurvePrivateKey():
                return bool(jwt.get_algorithm_by_name("ES256").verify(begin.encode(), key.public_key(), signature))
            case rsa.RSAPrivateKey():
                return bool(jwt.get_algorithm_by_name("RS256").verify(begin.encode(), key.public_key(), signature))
    except Exception:  # noqa: BLE001  # of a library, whatever it may be: this only has to say no
        return False
    return True


def check_token(auth: Auth, text: str, needs_expiry: bool) -> None:
    try:
        algorithm, id = read_head(text)
        assert isinstance(algorithm, str)
        assert isinstance(id, str)
    except TokenRefused as error:
        assert text not in str(error) or len(text) < 10
    for name in ALGORITHMS:
        try:
            claims = verify(text, key_of(name), TokenRules((name,), needs_expiry=needs_expiry))
        except TokenRefused as error:
            assert text not in str(error) or len(text) < 10
            continue
        assert is_good(text, name), "an unsigned token was accepted"
        assert isinstance(claims.get("sub", ""), str)
        assert not needs_expiry or int(claims["exp"]) >= time.time() - 5
        try:
            caller, grants = _describe(auth, text, claims)
        except Denied as denied:
            assert text not in str(denied)
            continue
        assert caller.credentials
        quote(caller.subject, safe="", errors="surrogatepass")
        assert grants is not None
        grants.allows("GET", "/topics/a/events?topic=b")


def check_key_set(body: bytes) -> None:
    try:
        keys = _parse(body)
    except _Unusable:
        return
    found = _KeySet("https://issuer.example/keys")
    found.keys = keys
    for key in keys:
        assert isinstance(key.key, PublicKey)
        assert key.algorithms
        assert set(key.algorithms) <= set(algorithms_of(key.key)) <= set(PUBLIC_ALGORITHMS)
        found.find(key.algorithms[0], key.id)


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", SECRET)
    auth = Auth.model_validate({"kind": "jwt", "secret_env": "TOKEN_SECRET"})
    texts = joined(JSON_PIECES, 6)
    heads = (
        HEADS.map(_dump) | mutated([b'{"alg":"HS256","kid":"k"}', b'{"alg":"ES256","crit":["b64"],"b64":false}'], JSON_PIECES, 3) | texts
    )
    claims = CLAIMS.map(_dump) | mutated([b'{"sub":"a","exp":99999999999,"events":{"read":["/**"]}}'], JSON_PIECES, 3) | texts
    forged = st.builds(signed, heads, claims, st.sampled_from([SECRET, SECRET, OTHER_SECRET]))
    pieces = [b".", b"=", b"-", b"_", b"eyJ", b"A", b"e30", b"\xff", b"W", coded(b"[" * 9000).encode(), coded(b'{"alg":"HS256"}').encode()]
    changed = mutated(good_tokens(), pieces, 3).map(lambda text: text.decode("utf-8", "surrogateescape"))
    fuzz(check_token, st.just(auth), forged | changed | forged.map(lambda text: text[:-1] + "A"), st.booleans())


def test_key_sets() -> None:
    jwks = [public_jwk(name, "fuzz") for name in ("ES256", "EdDSA", "RS256", "ES512")]
    values = VALUES | st.sampled_from(
        ["RSA", "EC", "OKP", "oct", "P-256", "P-384", "secp256k1", "Ed25519", "X25519", "Ed448", "AQAB", "AA", "sig", "ES256", jwks[0]["x"]]
    )
    entry = st.builds(
        lambda jwk, changes: jwk | changes, st.sampled_from([*jwks, {}]), st.dictionaries(st.sampled_from(JWK_NAMES), values, max_size=4)
    )
    sets = st.lists(entry | VALUES, max_size=3).map(lambda keys: _dump({"keys": keys})) | VALUES.map(_dump)
    fuzz(check_key_set, sets | mutated([_dump({"keys": jwks})], JSON_PIECES, 3) | joined(JSON_PIECES, 6))
