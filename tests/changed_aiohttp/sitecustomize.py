"""Let each Python process that has this folder in PYTHONPATH run the gateway as if aiohttp had changed.

The modules of the fast path cannot be imported. With AIOHTTP_WITHOUT, such as `aiohttp.http:HttpRequestParser`, that name is missing and is
found by the gateway's own check.
"""

import importlib
import importlib.abc
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

INTERNALS = "gateway.http.internals"
FAST = ("downstream", "downstream_server", "messages", "received_body", "tls_connector", "upstream", "upstream_client")
FAST += ("upstream_connector", "upstream_protocol")


class _FailingCheck(importlib.abc.MetaPathFinder):
    """Replaces what the check of aiohttp's internals finds."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != INTERNALS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.look = lambda: ["the tests ask for the documented interface"]  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


for name in FAST:
    sys.modules[f"gateway.http.{name}"] = None  # type: ignore[assignment]  # what makes an import fail
if "AIOHTTP_WITHOUT" in os.environ:
    import aiohttp.web  # noqa: F401  # all of it is loaded before a name goes missing

    place, _, missing = os.environ["AIOHTTP_WITHOUT"].partition(":")
    delattr(importlib.import_module(place), missing)
else:
    sys.meta_path.insert(0, _FailingCheck())
