"""Describe errors in a route for the operator who wrote it."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from service.settings import describe_removed

from .auth_table import describe_auth
from .cors import Cors

_REMOVED = {
    "auth.jwks_max_age_seconds": "keys are fetched again after 600 s",
    "auth.jwks_keep_seconds": "keys are kept for 86400 s while fetches fail",
    "auth.jwks_refetch_seconds": "two fetches are at least 10 s apart",
    "auth.jwks_timeout_seconds": "a fetch may take 5 s",
}
"""Keys of earlier releases, each with what replaces it."""
_TABLES: dict[str, type[BaseModel]] = {"cors": Cors}


def describe(problem: Mapping[str, Any], number: int, table: Mapping[str, Any], route: type[BaseModel]) -> str:
    """Return the message for one of pydantic's errors in the route table with this number, counted from 1."""
    key = ".".join(str(part) for part in problem["loc"])
    where = f"route {number} ({table.get('path', 'without path')!s})"
    if not key:  # keys that contradict each other
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    if problem["type"] == "extra_forbidden" and key in _REMOVED:
        return f"{where}: {describe_removed(key, _REMOVED[key])}"
    if problem["loc"][0] == "auth":
        return f"{where}: {describe_auth(problem)}"
    if problem["type"] == "extra_forbidden":
        *tables, name = problem["loc"]
        allowed = (_TABLES[tables[0]] if tables else route).model_fields
        nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0)[0]
        return f"{where}: unknown key {key!r}, the nearest is {nearest!r}; allowed are {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{where}: key {key!r} is missing"
    got = re.sub(r"//[^/@]*@", "//***@", repr(problem["input"]))  # keeps credentials out of logs
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "array").replace("valid dictionary", "table")
    return f"{where}: {key} = {got}: {message}"
