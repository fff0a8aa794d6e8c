"""Settings: one frozen class per service, read from its environment variables, and nothing silently ignored."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")
"""What Kubernetes and Docker links set for a service of the same name (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT_80_TCP_ADDR`)."""


class ServiceSettings(BaseSettings):
    """Fields are environment variables with the service's prefix; an empty variable counts as not set."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, allow_inf_nan=False, use_attribute_docstrings=True)

    others_variables: ClassVar[frozenset[str]] = frozenset()
    """Variables with the service's prefix that are meant for somebody else, and therefore no mistake."""


S = TypeVar("S", bound=ServiceSettings)


class SettingsError(ValueError):
    """The environment does not make sense; the message has a line for each problem, with what is allowed."""


def read_settings(settings: type[S], environ: Mapping[str, str] = os.environ) -> S:
    """Builds `settings` from the process environment.

    Raises SettingsError when a variable has the service's prefix but is none of its settings, or when a value is not allowed.
    """
    prefix = settings.model_config["env_prefix"]
    names = {prefix + field.upper() for field in settings.model_fields}
    problems = []
    for name in sorted(environ):
        if name.upper().startswith(prefix) and name.upper() not in names | settings.others_variables and not _SERVICE_LINK.search(name):
            nearest = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0)
            problems.append(f"{name} is not a setting; the nearest is {nearest[0]}")
    if problems:
        raise SettingsError("\n".join(problems))
    try:
        return settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = prefix + "_".join(str(part) for part in problem["loc"]).upper()
            secret = any(settings.model_fields[part].annotation is SecretStr for part in problem["loc"] if part in settings.model_fields)
            shown = "" if secret else f"={problem['input']!r}"
            lines.append(f"{name}{shown}: {problem['msg']}" if problem["loc"] else problem["msg"])
        raise SettingsError("\n".join(lines)) from error


def describe_settings(settings: type[ServiceSettings]) -> str:
    """Gives a line or two per setting: variable, default, meaning."""
    prefix = settings.model_config["env_prefix"]
    lines = []
    for field, info in settings.model_fields.items():
        default = info.get_default(call_default_factory=True)
        shown = "" if default is None or str(default) == "" else f" (default {default})"
        lines.append(f"  {prefix}{field.upper()}{shown}\n      {info.description}")
    return "\n".join(lines)


def parse_arguments(
    parser: argparse.ArgumentParser, settings: type[ServiceSettings], arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses the command line with `parser`, whose `--help` then lists the settings."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "settings, from the environment:\n" + describe_settings(settings)
    return parser.parse_args(arguments)


def settings_or_exit(settings: type[S]) -> S:
    """The same as `read_settings` for a `__main__`: problems go to stderr and the process exits with status 2."""
    try:
        return read_settings(settings)
    except SettingsError as error:
        print(f"{settings.model_config['env_prefix'].rstrip('_').lower()}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
