"""Describe errors in a route for the operator who wrote it."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from service.settings import describe_removed

from .auth_table import TOKEN_KEYS, Auth
from .cors import Cors
from .keys import SECRET_KEYS, ApiKey, GrantTable

_REMOVED = {
    "auth.jwks_max_age_seconds": "keys are fetched again after 600 s",
    "auth.jwks_keep_seconds": "keys are kept for 86400 s while fetches fail",
    "auth.jwks_refetch_seconds": "two fetches are at least 10 s apart",
    "auth.jwks_timeout_seconds": "a fetch may take 5 s",
}
"""Keys of earlier releases, each with what replaces it."""
_TABLES: dict[str, type[BaseModel]] = {"cors": Cors, "auth": Auth, "keys": ApiKey, "grants": GrantTable}
_SECRET_NAMES = re.compile(r"(?i)secret|password|passphrase|token|(^|_)key$|private|hmac|^key")
_NEVER_SHOWN = {*TOKEN_KEYS, *SECRET_KEYS}  # an operator may have put the secret itself there


def describe(problem: Mapping[str, Any], number: int, table: Mapping[str, Any], route: type[BaseModel]) -> str:
    """Return the message for one of pydantic's errors in the route table with this number, counted from 1. It shows no secrets."""
    return f"route {number} ({table.get('path', 'without path')!s}): {_explain(problem, route)}"


def _explain(problem: Mapping[str, Any], route: type[BaseModel]) -> str:
    loc = [str(part) for part in problem["loc"]]
    key = ".".join(loc)
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "array").replace("valid dictionary", "table")
    if not loc:  # keys that contradict each other
        return str(message)
    if problem["type"] == "extra_forbidden":
        return _explain_unknown(key, loc, route)
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    got = problem["input"]
    if loc[0] == "auth" and (loc[-1] in _NEVER_SHOWN or not isinstance(got, str | int | float)):
        return f"{key}: {message}"
    shown = re.sub(r"//[^/@]*@", "//***@", repr(got))  # keeps credentials out of logs
    return f"{key} = {shown}: {message}"


def _explain_unknown(key: str, loc: list[str], route: type[BaseModel]) -> str:
    *tables, name = loc
    if key in _REMOVED:
        return describe_removed(key, _REMOVED[key])
    if "auth" in tables and _SECRET_NAMES.search(name):
        instead = "key_env or key_file" if "keys" in loc else "secret_env or secret_file"
        return f"{key}: do not put secrets into this file; name an environment variable or a file with {instead}"
    allowed = next((_TABLES[part] for part in reversed(tables) if part in _TABLES), route).model_fields
    nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0)[0]
    return f"unknown key {key!r}, the nearest is {nearest!r}; allowed are {', '.join(allowed)}"
