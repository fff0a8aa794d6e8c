"""Settings: one frozen class for each service, read from its environment variables. Unknown variables are refused."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import AfterValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")
"""The variables that Kubernetes and Docker links set for a service (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT_80_TCP_ADDR`)."""
_MOST_SECRET_BYTES = 64 * 1024


def checked_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return the validator of a text that `parse` must accept. The setting keeps the text."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


class ServiceSettings(BaseSettings):
    """The settings of one service. Fields are environment variables with the service's prefix; an empty variable counts as not set.

    A `SecretStr` field may also be read from a file: the variable with the suffix `_FILE` names it.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, allow_inf_nan=False, use_attribute_docstrings=True)

    others_variables: ClassVar[frozenset[str]] = frozenset()
    """Variables with the service's prefix that another program reads, and that are therefore no mistake."""

    removed_variables: ClassVar[Mapping[str, str]] = {}
    """Variables of earlier releases, each with what replaces it."""


S = TypeVar("S", bound=ServiceSettings)


class SettingsError(ValueError):
    """The environment has invalid settings. The message has a line for each problem, with the allowed values."""


def read_settings(settings: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """Build `settings` from the process environment.

    Raises SettingsError if a variable with the service's prefix is unknown, if a value is not allowed, or if a secret's file cannot be
    read. The message shows no secret.
    """
    prefix = settings.model_config["env_prefix"]
    known = setting_names(settings) | settings.others_variables
    unknown = (name for name in sorted(environ) if name.upper().startswith(prefix) and name.upper() not in known)
    problems = [_describe_unknown(name, settings) for name in unknown if not _SERVICE_LINK.search(name)]
    if problems:
        raise SettingsError("\n".join(problems))
    secrets = _read_secrets(settings, environ)
    try:
        return settings(**secrets)
    except ValidationError as error:
        hidden = _secret_fields(settings)
        lines = []
        for problem in error.errors():
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            shown = "" if hidden.intersection(problem["loc"]) else f"={problem['input']!r}"
            name += "_FILE" if secrets.keys() & set(problem["loc"]) else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}{shown}: {message}" if problem["loc"] else message)
        raise SettingsError("\n".join(lines)) from error


def _describe_unknown(name: str, settings: type[ServiceSettings]) -> str:
    if instead := settings.removed_variables.get(name.upper()):
        return describe_removed(name, instead)
    nearest = difflib.get_close_matches(name.upper(), setting_names(settings), n=1, cutoff=0)
    return f"{name} is not a setting; the nearest is {nearest[0]}"


def describe_removed(name: str, instead: str) -> str:
    """Return the message for a setting of an earlier release. `instead` says what replaces it."""
    return f"{name} is no longer a setting: {instead}; remove it"


def setting_names(settings: type[ServiceSettings]) -> set[str]:
    """Return the names of all variables that a service reads, including those of secrets' files."""
    prefix = settings.model_config["env_prefix"]
    return {prefix + field.upper() for field in settings.model_fields} | {
        prefix + f"{field}_file".upper() for field in _secret_fields(settings)
    }


def _secret_fields(settings: type[ServiceSettings]) -> frozenset[str]:
    return frozenset(field for field, info in settings.model_fields.items() if SecretStr in (info.annotation, *get_args(info.annotation)))


def _read_secrets(settings: type[ServiceSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the secrets that are read from files, by field. Raises SettingsError with each that cannot be read."""
    given = {name.upper(): value for name, value in environ.items() if value}
    secrets, problems = {}, []
    for field in sorted(_secret_fields(settings)):
        name = f"{settings.model_config['env_prefix']}{field}".upper()
        path = given.get(f"{name}_FILE")
        if path is None:
            continue
        if name in given:
            problems.append(f"{name} and {name}_FILE are both set; set one of them")
            continue
        try:
            secrets[field] = _read_secret(Path(path))
        except ValueError as error:
            problems.append(f"{name}_FILE={path!r}: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return secrets


def _read_secret(file: Path) -> str:
    """Return the content of a file without a final line end. Raises ValueError, without any of the content."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MOST_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    if len(content) > _MOST_SECRET_BYTES:
        raise ValueError(f"the file has more than {_MOST_SECRET_BYTES} bytes")
    try:
        secret = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    if not secret:
        raise ValueError("the file is empty")
    return secret


def describe_settings(settings: type[ServiceSettings]) -> str:
    """Return two lines for each setting: variable and default, then its description."""
    prefix = settings.model_config["env_prefix"]
    lines = []
    for field, info in settings.model_fields.items():
        default = info.get_default(call_default_factory=True)
        shown = "" if default is None or str(default) == "" else f" (default {default})"
        lines.append(f"  {prefix}{field.upper()}{shown}\n      {info.description}")
        if field in _secret_fields(settings):
            lines.append(f"  {prefix}{field.upper()}_FILE\n      A file to read it from instead; a final line end is removed.")
    return "\n".join(lines)


def parse_arguments(
    parser: argparse.ArgumentParser, settings: type[ServiceSettings], arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse the command line with `parser`, and list the settings in its `--help`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "settings, from the environment:\n" + describe_settings(settings)
    return parser.parse_args(arguments)


def settings_or_exit(settings: type[S]) -> S:
    """Return `read_settings(settings)`, for a `__main__`: print problems to stderr and exit with status 2."""
    try:
        return read_settings(settings)
    except SettingsError as error:
        print(f"{settings.model_config['env_prefix'].rstrip('_').lower()}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
