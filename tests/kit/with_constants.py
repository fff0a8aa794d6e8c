"""Run a service with other constants: `python -m tests.kit.with_constants gateway '{"gateway.access.key_sets.TIMEOUT_SECONDS": 1}'`."""

import importlib
import json
import runpy
import sys


def apply(constants: dict[str, object]) -> None:
    """Import the modules of these constants, and set them."""
    for place, value in constants.items():
        module, _, name = place.rpartition(".")
        loaded = importlib.import_module(module)
        if not hasattr(loaded, name):
            raise AttributeError(f"{module} has no constant {name}")
        setattr(loaded, name, value)


def main() -> None:
    service, constants = sys.argv[1], json.loads(sys.argv[2])
    del sys.argv[1:3]
    apply(constants)
    runpy.run_module(service, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
