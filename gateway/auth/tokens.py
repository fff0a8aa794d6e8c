"""JSON Web Tokens (RFC 7519, RFC 8725): whether one is good, and what it says."""

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
"""Those of a secret that both sides know. Never allowed beside the others: a public key would do as the secret."""
PUBLIC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of a public key."""

_OF_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_TOKEN = re.compile(r"[A-Za-z0-9_-]+={0,2}\.[A-Za-z0-9_-]*={0,2}\.[A-Za-z0-9_-]*={0,2}")
_SAID: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidSignatureError: "the signature of the token is wrong",
    jwt.InvalidAlgorithmError: "the algorithm of the token is not allowed here",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
    jwt.InvalidKeyError: "the token is signed with a key that is too weak or does not fit its algorithm",
}


class TokenRefused(Exception):
    """A token is not good; the message is for whoever sent it and repeats nothing of it."""

    @property
    def expired(self) -> bool:
        """Whether it was good once."""
        return isinstance(self.__cause__, jwt.ExpiredSignatureError)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is asked of a token beside its signature."""

    algorithms: tuple[str, ...]
    issuers: tuple[str, ...] = ()
    """It must be of one of these; empty: of any."""
    audiences: tuple[str, ...] = ()
    """It must be for one of these; empty: for any."""
    leeway_seconds: float = 0.0
    """By how much clocks may differ."""
    needs_expiry: bool = True


def algorithms_of(key: PublicKey) -> tuple[str, ...]:
    """Gives the algorithms that fit a public key, none for a curve that no algorithm is for."""
    if isinstance(key, RSAPublicKey):
        return tuple(name for name in PUBLIC_ALGORITHMS if name[:2] in ("RS", "PS"))
    if isinstance(key, EllipticCurvePublicKey):
        return (_OF_CURVES[key.curve.name],) if key.curve.name in _OF_CURVES else ()
    return ("EdDSA",)


def read_head(token: str) -> tuple[str, str]:
    """Gives algorithm and key ID (empty without one) that a token claims. Raises TokenRefused."""
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("the credential is no JSON Web Token")
    try:
        head = jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise _refused(error) from error
    algorithm = head.get("alg")
    return algorithm if isinstance(algorithm, str) else "", head.get("kid", "")


def verify(token: str, key: bytes | PublicKey, rules: TokenRules) -> dict[str, Any]:
    """Gives the claims of a token that is good. Raises TokenRefused."""
    if not _TOKEN.fullmatch(token):
        raise TokenRefused("the credential is no JSON Web Token")
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
        return TokenRefused(f"the token has no claim {error.claim!r}, which is asked for here")
    return TokenRefused(_SAID.get(type(error), "the credential is no JSON Web Token, or one with claims that make no sense"))
