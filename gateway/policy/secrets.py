"""Read the secrets of routes from the environment or files. No message here contains a secret."""

import hashlib
import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from .tokens import PublicKey, algorithms_of

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_API_KEY = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # characters allowed after `Bearer` (RFC 6750 section 2.1)
_LEAST_API_KEY_CHARACTERS = 16
_MOST_FILE_BYTES = 64 * 1024


class SecretError(ValueError):
    """A secret cannot be read or is invalid. The message names its place and what is allowed."""


def read_variable(name: str) -> bytes:
    """Return the value of an environment variable. Raises SecretError if it is not set."""
    if not _VARIABLE.fullmatch(name):
        raise SecretError("must be the name of an environment variable: capitals, digits and _; do not put the secret into this file")
    value = os.environ.get(name, "")
    if not value:
        raise SecretError(f"the environment variable {name} is not set")
    return os.fsencode(value)


def read_file(path: str) -> bytes:
    """Return the content of a file without the line end after it. Raises SecretError if it is unreadable, empty or too large."""
    if "/" not in path or "\n" in path:
        raise SecretError("must be the path of a file, with a slash, such as /run/secrets/token; do not put the secret into this file")
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        shown = path if Path(path).parent.is_dir() else "the file"  # else it may be the secret itself
        raise SecretError(f"cannot read {shown}: {reason}") from None
    if len(content) > _MOST_FILE_BYTES:
        raise SecretError(f"{path} must have at most {_MOST_FILE_BYTES} bytes")
    content = content.rstrip(b"\r\n")
    if not content:
        raise SecretError(f"{path} is empty")
    return content


def read_public_key(path: str) -> PublicKey:
    """Return the public key in a PEM file. Raises SecretError if the file is unreadable or has no usable key."""
    content = read_file(path)
    if b"PRIVATE KEY" in content:
        raise SecretError(f"{path} contains a private key, which must stay with the issuer; use the public key")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise SecretError(f"{path} contains no PEM public key (-----BEGIN PUBLIC KEY-----)") from None
    if not isinstance(key, PublicKey) or not algorithms_of(key):
        raise SecretError(f"{path} must contain a key of type RSA, P-256, P-384, P-521 or Ed25519")
    return key


def digest_of(key: str) -> str:
    """Return the SHA-256 of an API key, as in the routes file. A slow hash is not needed: keys are random and long."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_api_key(content: bytes) -> str:
    """Return the digest of an API key from a variable or file. Raises SecretError if it is not a valid key."""
    key = content.strip().decode("ascii", "replace")
    if not _API_KEY.fullmatch(key) or len(key) < _LEAST_API_KEY_CHARACTERS:
        raise SecretError(
            f"an API key must have at least {_LEAST_API_KEY_CHARACTERS} characters: letters, digits and -._~+/ (= at its end); "
            "`python -m gateway hash-key` makes one"
        )
    return digest_of(key)


def make_api_key() -> str:
    """Return a new random key of 256 bits."""
    return secrets.token_urlsafe(32)
