"""Run the gateway as if aiohttp had changed: `python -m tests.kit.documented_gateway [MODULE:NAME]`.

With an argument that name is missing from aiohttp. The modules of the fast path cannot even be imported here.
"""

import importlib
import sys

import aiohttp.web  # noqa: F401  # all of it is loaded before a name goes missing

from gateway.http import internals

FAST = ("downstream", "downstream_server", "messages", "received_body", "response", "tls_transport", "upstream")
FAST += ("upstream_client", "upstream_connector", "upstream_protocol")


def main() -> None:
    for name in FAST:
        sys.modules[f"gateway.http.{name}"] = None  # type: ignore[assignment]  # what makes an import fail
    if sys.argv[1:]:
        module, _, name = sys.argv.pop(1).partition(":")
        delattr(importlib.import_module(module), name)
    else:
        internals.look = lambda: ["the tests ask for the documented interface"]
    from gateway.__main__ import main as run_gateway

    run_gateway()


if __name__ == "__main__":
    main()
