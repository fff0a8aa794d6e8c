"""Verify JSON Web Tokens (RFC 7519, RFC 8725)."""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
"""Algorithms with a shared secret. Never allowed beside the others: a public key would work as the secret."""
PUBLIC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms with a public key."""

_OF_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_TOKEN = re.compile(r"[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]*={0,2}\.[A-Za-z0-9_-]*={0,2}")
_SAID: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidSignatureError: "the signature of the token is invalid",
    jwt.InvalidAlgorithmError: "the algorithm of the token is not allowed",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is from another issuer",
    jwt.InvalidKeyError: "the token is signed with a key that is too weak or does not fit its algorithm",
}


class TokenRefused(Exception):
    """A token is invalid. The message is for the client and repeats nothing of the token."""

    @property
    def expired(self) -> bool:
        """Whether the token is invalid only because it has expired."""
        return isinstance(self.__cause__, jwt.ExpiredSignatureError)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Requirements on a token besides its signature."""

    algorithms: tuple[str, ...]
    issuers: tuple[str, ...] = ()
    """Allowed issuers, empty for any."""
    audiences: tuple[str, ...] = ()
    """Audiences of which a token must have one, empty for any."""
    leeway_seconds: float = 0.0
    """Tolerated difference between clocks."""
    needs_expiry: bool = True


def algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """Return the algorithms that fit a public key, none for an unsupported curve."""
    if isinstance(key, RSAPublicKey):
        return tuple(name for name in PUBLIC_ALGORITHMS if name[:2] in ("RS", "PS"))
    if isinstance(key, EllipticCurvePublicKey):
        return (_OF_CURVES[key.curve.name],) if key.curve.name in _OF_CURVES else ()
    return ("EdDSA",)


def read_head(token: str) -> tuple[str, str]:
    """Return the algorithm and key ID, empty if missing, that a token claims. Raises TokenRefused if it is malformed."""
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("the credential is not a JSON Web Token")
    try:
        head = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _refused(error) from error
    algorithm = head.get("alg")
    return algorithm if isinstance(algorithm, str) else "", head.get("kid", "")


def verify(token: str, key: bytes | PublicKey, rules: TokenRules) -> dict[str, Any]:
    """Verify a token and return its claims. Raises TokenRefused if it is invalid."""
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("the credential is not a JSON Web Token")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(rules.algorithms),
            audience=rules.audiences or None,
            issuer=rules.issuers or None,
            leeway=rules.leeway_seconds,
            options={
                "require": ["exp"] if rules.needs_expiry else [],
                "verify_aud": bool(rules.audiences),
                "enforce_minimum_key_length": True,
            },
        )
    except jwt.PyJWTError as error:
        raise _refused(error) from error
    return claims


def _refused(error: jwt.PyJWTError) -> TokenRefused:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return TokenRefused(f"the token needs a claim {error.claim!r}")
    return TokenRefused(_SAID.get(type(error), "the credential is not a valid JSON Web Token, or has malformed claims"))
