"""The tables `[[routes.auth.keys]]`: API keys and their grants."""

import re
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from .grants import Grant, Grants
from .secrets import read_api_key, read_file, read_variable

T = TypeVar("T")

SECRET_KEYS = ("sha256", "key_env", "key_file")
"""Keys of which an API key's table has exactly one."""


def exactly_one(table: BaseModel, names: Sequence[str]) -> str:
    """Return the one of these keys that is set. Raises ValueError unless it is exactly one."""
    given = [name for name in names if getattr(table, name)]
    if len(given) != 1:
        there = " and ".join(given) if given else "none"
        raise ValueError(f"exactly one of {', '.join(names)} is required, got {there}")
    return given[0]


def read_at(name: str, read: Callable[[], T]) -> T:
    """Return the result of `read`. A ValueError that it raises is prefixed with the key's name."""
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class StrictTable(BaseModel):
    """A table that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True)


class GrantTable(StrictTable):
    """The rights of an API key's holder."""

    read: tuple[str, ...] = ()
    """Paths and topic patterns for GET and HEAD."""
    publish: tuple[str, ...] = ()
    """Paths and topic patterns for all other methods."""

    @field_validator("read", "publish")
    @classmethod
    def _entries_are_grants(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        Grant.parse(entries)
        return entries


class ApiKey(StrictTable):
    """One `[[routes.auth.keys]]` table. Keys with the same name belong to one holder, so that keys can be rotated."""

    name: str = Field(min_length=1, max_length=200)
    """Name of the holder, for limits and the upstream."""
    sha256: str = ""
    """The key's SHA-256 in hexadecimal, as printed by `python -m gateway hash-key`."""
    key_env: str = ""
    """An environment variable with the key."""
    key_file: str = ""
    """A file with the key."""
    grants: GrantTable | None = None
    """What the key's holder may read and publish; by default everything that the route serves."""
    _digest: str = PrivateAttr("")
    _grants: Grants | None = PrivateAttr(None)

    @field_validator("sha256")
    @classmethod
    def _sha256_is_a_digest(cls, digest: str) -> str:
        if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError("must be 64 hexadecimal digits, the SHA-256 of the key; do not put the key itself into this file")
        return digest.lower()

    @model_validator(mode="after")
    def _key_is_there(self) -> Self:
        exactly_one(self, SECRET_KEYS)
        if self.sha256:
            self._digest = self.sha256
        else:
            self._digest = read_at(
                "key_env" if self.key_env else "key_file",
                lambda: read_api_key(read_variable(self.key_env) if self.key_env else read_file(self.key_file)),
            )
        if self.grants is not None:
            self._grants = Grants(Grant.parse(self.grants.read), Grant.parse(self.grants.publish))
        return self

    @property
    def digest(self) -> str:
        """The key's SHA-256 in hexadecimal."""
        return self._digest

    @property
    def allowed(self) -> Grants | None:
        """The key's grants, None for everything."""
        return self._grants
