"""The services beside the gateway that the dashboard shows."""

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_URL = re.compile(r"https?://[^\s;,/?#@]+(/[^\s;,?#]*)?")


def parse_services(text: str) -> dict[str, str]:
    """Parse `name=URL,name=URL`. Raises ValueError if an entry is wrong or a name is repeated."""
    services: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, url = entry.partition("=")
        if not equals or not _NAME.fullmatch(name) or not _URL.fullmatch(url):
            allowed = "name=URL: a name of letters a to z, digits and -, and an http or https URL without query or credentials"
            raise ValueError(f"services must be a comma-separated list of {allowed}; got {re.sub('//[^/@]*@', '//***@', entry)!r}")
        if name in services:
            raise ValueError(f"service names must be unique, got {name!r} twice")
        services[name] = url.rstrip("/")
    return services
