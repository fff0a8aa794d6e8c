"""The authenticated caller of a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a valid credential."""

    subject: str
    """Name of the holder: a token's `sub` or an API key's name; empty if the token has none."""
    credentials: bytes
    """Digest of the holder's identity, which stays the same with a newer token."""
    expires_at: float = 0.0
    """Unix time at which the credential expires. 0: never."""
    key: str = ""
    """Digest of the API key, empty for other credentials."""
