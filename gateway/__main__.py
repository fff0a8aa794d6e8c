"""Run the gateway until SIGTERM or SIGINT, then drain and exit 0; or run one of its commands, such as `doctor URL`."""

import argparse
import signal
import sys

if __name__ == "__main__":  # before the imports, which take most of the start: until then SIGHUP would end the process
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from service.event_loop import run
from service.logs import configure_logs
from service.settings import parse_arguments, settings_or_exit
from service.tracing import tracing_or_exit

from .policy.route_table import RouteError
from .policy.settings import Settings
from .server.command_line import check, hash_key, read_routes_of
from .server.workers.parent import serve_with_workers
from .server.workers.pool import WorkerFailed
from .server.workers.worker import serve_alone


def main() -> None:
    """Read the settings and serve. Exit with 2 if they are invalid, 1 if a port cannot be bound or a worker had to be killed."""
    if sys.argv[1:2] == ["doctor"]:
        from .doctor.command import doctor  # imported only here, because a server does not need it

        raise SystemExit(doctor(sys.argv[2:]))
    if sys.argv[1:2] == ["check"]:
        raise SystemExit(check(sys.argv[2:]))
    if sys.argv[1:2] == ["hash-key"]:
        raise SystemExit(hash_key(sys.argv[2:]))
    about = (
        "Proxy HTTP, and re-stream event streams block by block. Commands: `doctor URL` diagnoses any event stream, "
        "`check [FILE]` validates a routes file, `hash-key NAME` makes an API key."
    )
    parser = argparse.ArgumentParser("python -m gateway", description=about)
    parse_arguments(parser, Settings)
    settings = settings_or_exit(Settings)
    try:
        routes = read_routes_of(settings)
    except RouteError as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    configure_logs("gateway", settings.log_level)
    try:
        if settings.workers == 1:
            run(serve_alone(settings, routes, tracing_or_exit("gateway")))
        elif not run(serve_with_workers(settings, routes)):
            raise SystemExit(1)
    except OSError as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except WorkerFailed as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(error.status if error.status > 0 else 1) from None


if __name__ == "__main__":
    main()
