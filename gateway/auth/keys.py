"""The tables `[[routes.auth.keys]]`: keys of programs, each with what it lets do."""

import re
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from .grants import Grant, Grants
from .secrets import read_api_key, read_file, read_variable

T = TypeVar("T")

SECRET_KEYS = ("sha256", "key_env", "key_file")
"""Of these an API key has one."""


def exactly_one(table: BaseModel, names: Sequence[str]) -> str:
    """Gives which one of these keys is set. Raises ValueError unless it is one."""
    given = [name for name in names if getattr(table, name)]
    if len(given) != 1:
        there = " and ".join(given) + " are there" if given else "none is there"
        raise ValueError(f"exactly one of {', '.join(names)} is needed, {there}")
    return given[0]


def read_at(name: str, read: Callable[[], T]) -> T:
    """Gives what `read` gives; a ValueError of it says which key it was for."""
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class StrictTable(BaseModel):
    """A table whose keys are all known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, hide_input_in_errors=True)


class GrantTable(StrictTable):
    """What the holder of an API key may do."""

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
    """One `[[routes.auth.keys]]` table. Keys of one name are of one holder, so that one can be replaced by another."""

    name: str = Field(min_length=1, max_length=200)
    """What the holder is called, in limits and upstream."""
    sha256: str = ""
    """The key's SHA-256 in hexadecimal, as `python -m gateway hash-key` gives it."""
    key_env: str = ""
    """An environment variable that has the key."""
    key_file: str = ""
    """A file that has the key."""
    grants: GrantTable | None = None
    """What it lets read and publish; all that the route serves when it is missing."""
    _digest: str = PrivateAttr("")
    _grants: Grants | None = PrivateAttr(None)

    @field_validator("sha256")
    @classmethod
    def _sha256_is_a_digest(cls, digest: str) -> str:
        if digest and not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError("must be 64 hexadecimal digits, the SHA-256 of the key; the key itself does not stand in this file")
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
        """What it lets do; None: everything."""
        return self._grants
