"""Make keys of issuers, and tokens signed with them."""

import base64
import functools
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a-secret-of-issuer-and-gateway--0123456789"
OTHER_SECRET = "another-secret-of-another-issuer-987654321"
EVERYTHING = {"read": ["/**"], "publish": ["/**"]}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def private_key(algorithm: str, name: str = "") -> PrivateKey:
    """Return the key called `name` for an algorithm, always the same."""
    return _make_key(algorithm, name)


@functools.cache
def _make_key(algorithm: str, name: str) -> PrivateKey:
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm])


def public_pem(algorithm: str, name: str = "") -> bytes:
    """Return its public key as PEM."""
    return private_key(algorithm, name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_jwk(algorithm: str, name: str, **members: object) -> dict[str, Any]:
    """Return its public key as a JWKS entry with `name` as ID."""
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(private_key(algorithm, name).public_key(), as_dict=True)
    return {name: value for name, value in found.items() if name != "key_ops"} | {"kid": name, "use": "sig"} | members


def claims(**changes: object) -> dict[str, object]:
    """Return claims that grant everything for a minute, with changes; None removes a claim."""
    now = int(time.time())
    every = {"sub": "alice", "iat": now, "exp": now + 60, "events": EVERYTHING} | changes
    return {name: value for name, value in every.items() if value is not None}


def hs_token(secret: str = SECRET, algorithm: str = "HS256", **changes: object) -> str:
    """Return a token signed with a secret."""
    return jwt.encode(claims(**changes), secret, algorithm)


def token(algorithm: str, name: str = "", *, kid: str | None = None, **changes: object) -> str:
    """Return a token signed with the key called `name`."""
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(claims(**changes), private_key(algorithm, name), algorithm, headers=headers)


def unsigned_token(algorithm: str = "none", **changes: object) -> str:
    """Return a token that claims to need no signature."""
    parts = (json.dumps({"typ": "JWT", "alg": algorithm}), json.dumps(claims(**changes)))
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts) + "."


def bearer(token: str) -> tuple[str, str]:
    """Return the header field with a credential."""
    return "Authorization", f"Bearer {token}"
