"""Who makes a request, as far as a credential has shown it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a credential that was found good."""

    subject: str
    """What it is called: a token's `sub`, an API key's name; empty when the token has none."""
    credentials: bytes
    """A digest of who it is, the same when it comes back with a newer token."""
    expires_at: float = 0.0
    """Unix time at which the credential is no longer good; 0: never."""
    key: str = ""
    """The digest of its API key; empty when it has shown something else."""
