"""Secrets of routes, which stand in the environment or in files; no message here has one."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .tokens import PublicKey, algorithms_of

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_API_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what can stand behind `Bearer` (RFC 6750 section 2.1)
_LEAST_API_KEY_CHARACTERS = 16
_MOST_FILE_BYTES = 64 * 1024


class SecretError(ValueError):
    """A secret cannot be had or is none; the message says where it was looked for and what is allowed."""


def read_variable(name: str) -> bytes:
    """Gives the value of an environment variable. Raises SecretError."""
    if not _VARIABLE.fullmatch(name):
        raise SecretError("is the name of an environment variable, of capitals, digits and _; a secret does not stand in this file")
    value = os.environ.get(name, "")
    if not value:
        raise SecretError(f"the environment variable {name} is not set")
    return os.fsencode(value)


def read_file(path: str) -> bytes:
    """Gives what is in a file, without the line end behind it. Raises SecretError."""
    if "/" not in path or "\n" in path:
        raise SecretError("is the path of a file, with a slash, such as /run/secrets/token; a secret does not stand in this file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path"
        shown = path if Path(path).parent.is_dir() else "the file"  # or it may be the secret itself
        raise SecretError(f"cannot read {shown}: {reason}") from None
    if len(content) > _MOST_FILE_BYTES:
        raise SecretError(f"{path} has more than {_MOST_FILE_BYTES} bytes")
    content = content.rstrip(b"\r\n")
    if not content:
        raise SecretError(f"{path} is empty")
    return content


def read_public_key(path: str) -> PublicKey:
    """Gives the public key in a PEM file. Raises SecretError."""
    content = read_file(path)
    if b"PRIVATE KEY" in content:
        raise SecretError(f"{path} has a private key, which is nobody's but the issuer's; give the public one")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise SecretError(f"{path} has no public key as PEM (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, PublicKey) or not algorithms_of(key):
        raise SecretError(f"{path} has a key of a kind that no allowed algorithm is for; RSA, P-256, P-384, P-521 and Ed25519 are")
    return key


def digest_of(key: str) -> str:
    """Gives the SHA-256 of an API key, as the routes have it. It need not be slow: keys are random and long."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_api_key(content: bytes) -> str:
    """Gives the digest of the API key that a variable or a file has. Raises SecretError."""
    key = content.strip().decode("ascii", "replace")
    if not _API_KEY.fullmatch(key) or len(key) < _LEAST_API_KEY_CHARACTERS:
        raise SecretError(
            f"an API key has at least {_LEAST_API_KEY_CHARACTERS} characters, letters, digits and -._~+/ (= at its end); "
            "`python -m gateway hash-key` makes one"
        )
    return digest_of(key)


def make_api_key() -> str:
    """Gives a key that nobody can guess."""
    return secrets.token_urlsafe(32)
