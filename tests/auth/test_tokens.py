"""Test which tokens are valid."""

import base64
import contextlib
import hashlib
import hmac
import json
import re
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.tokens import PUBLIC_ALGORITHMS, PublicKey, TokenRefused, TokenRules, algorithms_of, read_head, verify
from tests.auth.signing import OTHER_SECRET, SECRET, hs_token, public_pem, token, unsigned_token

RULES = TokenRules(("HS256",))
KEY = SECRET.encode()


def public_key(algorithm: str, name: str = "") -> PublicKey:
    key = load_pem_public_key(public_pem(algorithm, name))
    assert isinstance(key, PublicKey)
    return key


def refused(text: str, key: bytes | PublicKey = KEY, rules: TokenRules = RULES) -> str:
    with pytest.raises(TokenRefused) as error:
        verify(text, key, rules)
    assert len(text) < 10 or text not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("algorithm", PUBLIC_ALGORITHMS)
def test_token_of_each_public_key_algorithm_is_verified_with_its_key(algorithm: str) -> None:
    key = public_key(algorithm)
    assert algorithm in algorithms_of(key)
    assert verify(token(algorithm), key, TokenRules(algorithms_of(key)))["sub"] == "alice"
    assert "signature of the token is invalid" in refused(token(algorithm, "other"), key, TokenRules(algorithms_of(key)))


def test_token_with_another_secret_is_rejected() -> None:
    assert verify(hs_token(), KEY, RULES)["sub"] == "alice"
    assert "signature of the token is invalid" in refused(hs_token(OTHER_SECRET))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS384", "HS512", "RS256"])
def test_token_with_a_disallowed_algorithm_is_rejected_whatever_the_signature(algorithm: str) -> None:
    assert "algorithm of the token is not allowed" in refused(unsigned_token(algorithm))


def test_public_key_cannot_serve_as_a_shared_secret() -> None:
    """If a token could choose its algorithm, anyone could sign with the public key."""
    pem = public_pem("RS256")
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, {"exp": 2**40}))
    signature = base64.urlsafe_b64encode(hmac.digest(pem, head + b"." + body, hashlib.sha256)).rstrip(b"=")
    forged = b".".join((head, body, signature)).decode()
    key = public_key("RS256")
    assert "algorithm" in refused(forged, key, TokenRules(algorithms_of(key)))
    assert refused(forged, pem, TokenRules(("HS256",)))  # even if configured so


def test_token_of_a_weak_key_is_rejected() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        text = jwt.encode({"exp": 2**40}, weak, "RS256")
    assert "too weak" in refused(text, weak.public_key(), TokenRules(("RS256",)))


def test_token_times_are_compared_with_the_leeway() -> None:
    now = int(time.time())
    lenient = replace(RULES, leeway_seconds=30)
    assert "has expired" in refused(hs_token(exp=now - 5))
    assert verify(hs_token(exp=now - 5), KEY, lenient)
    assert "has expired" in refused(hs_token(exp=now - 40), rules=lenient)
    assert "not valid yet" in refused(hs_token(nbf=now + 20))
    assert verify(hs_token(nbf=now + 20), KEY, lenient)
    assert "not valid yet" in refused(hs_token(nbf=now + 60), rules=lenient)
    assert "not valid yet" in refused(hs_token(iat=now + 60), rules=lenient)


def test_only_an_expired_token_counts_as_expired() -> None:
    with pytest.raises(TokenRefused) as error:
        verify(hs_token(exp=1), KEY, RULES)
    assert error.value.expired
    with pytest.raises(TokenRefused) as error:
        verify(hs_token(OTHER_SECRET, exp=1), KEY, RULES)
    assert not error.value.expired


def test_token_needs_an_expiry_unless_the_rules_waive_it() -> None:
    assert "needs a claim 'exp'" in refused(hs_token(exp=None))
    assert "exp" not in verify(hs_token(exp=None), KEY, replace(RULES, needs_expiry=False))
    assert "has expired" in refused(hs_token(exp=1), rules=replace(RULES, needs_expiry=False))


def test_issuer_and_audience_must_match_the_rules() -> None:
    rules = replace(RULES, issuers=("https://a", "https://b"), audiences=("events", "other"))
    good = {"iss": "https://b", "aud": ["x", "events"]}
    assert verify(hs_token(**good), KEY, rules)
    assert "another issuer" in refused(hs_token(**good | {"iss": "https://c"}), rules=rules)
    assert "needs a claim 'iss'" in refused(hs_token(**good | {"iss": None}), rules=rules)
    assert "another audience" in refused(hs_token(**good | {"aud": "event"}), rules=rules)
    assert "needs a claim 'aud'" in refused(hs_token(**good | {"aud": None}), rules=rules)
    assert verify(hs_token(aud="anything"), KEY, RULES)


@pytest.mark.parametrize(
    "changes",
    [{"exp": "soon"}, {"exp": [1]}, {"exp": float("inf")}, {"exp": float("nan")}, {"nbf": {}}, {"iat": "x"}, {"sub": 5}, {"jti": 1}],
)
def test_token_with_malformed_claims_is_rejected(changes: dict[str, Any]) -> None:
    head, body = (json.dumps(part).encode() for part in ({"alg": "HS256"}, {"exp": 2**40} | changes))
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, body))
    signature = base64.urlsafe_b64encode(hmac.digest(KEY, text, hashlib.sha256)).rstrip(b"=")
    assert refused((text + b"." + signature).decode())


def test_token_with_unknown_critical_headers_is_rejected() -> None:
    assert refused(jwt.encode({"exp": 2**40}, SECRET, "HS256", headers={"crit": ["x"], "x": 1}))


@given(st.one_of(st.text(max_size=60), st.text(st.sampled_from("eyJhbGciOiJIUzI1NiJ9.-_="), max_size=60)))
def test_any_other_text_is_rejected_without_an_exception(text: str) -> None:
    with contextlib.suppress(TokenRefused):
        assert all(isinstance(part, str) for part in read_head(text))
    refused(text)


def test_token_with_one_flipped_bit_is_rejected() -> None:
    good = token("ES256", "bits")
    key = public_key("ES256", "bits")
    assert verify(good, key, TokenRules(("ES256",)))
    for place in range(0, len(good), 7):
        changed = good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :]
        if re.sub(r"[.]", "", changed) != re.sub(r"[.]", "", good):
            refused(changed, key, TokenRules(("ES256",)))
