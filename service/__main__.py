"""`python -m service BUNDLE`: serve a bundle over HTTP. `fullfunnel serve` is the same.

Knows options and exit codes. Does not know how serving works.
"""

import argparse
import sys
from pathlib import Path

from contract.errors import FullfunnelError

OPTIONS = (
    *("host", "port", "grpc_port", "admin_host", "admin_port", "keys", "insecure", "workers"),
    *("provider", "intra_op_threads", "drain_delay_s", "log_format"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The options; what is not given comes from FULLFUNNEL_ variables of the environment, or is the default."""
    parser.add_argument("bundle", type=Path, help="directory of the bundle to serve")
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one (8000)")
    parser.add_argument("--grpc-port", type=int, help="port to listen on for gRPC, 0 for any free one (no gRPC)")
    parser.add_argument("--admin-host", help="address to listen on for operators (127.0.0.1)")
    parser.add_argument("--admin-port", type=int, help="port for operators: /metrics; 0 for any free one (none)")
    parser.add_argument("--keys", help="file of the keys that are good, by `fullfunnel key` (nobody is asked for one)")
    parser.add_argument("--insecure", action="store_true", default=None, help="allow a host that others can reach")
    parser.add_argument("--workers", type=int, help="processes that serve, 0 for one for each core (1)")
    parser.add_argument("--provider", choices=("cpu", "cuda", "auto"), help="what runs the model (cpu)")
    parser.add_argument("--intra-op-threads", type=int, help="threads of one run of the model (1)")
    parser.add_argument("--log-format", choices=("text", "json"), help="how lines on stderr are written (text)")
    parser.add_argument("--drain-delay-s", type=float, help="seconds served on after SIGTERM (5)")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop: the exit status.

    Raises: SettingInvalid, AddressUnavailable, BundleInvalid.
    """
    from service.reading import Reading

    reading = Reading(args.bundle)  # which takes about as long as what is imported here
    from service.api import logs
    from service.api.serving import serve
    from service.api.settings import Settings

    settings = Settings.read(**{name: getattr(args, name) for name in OPTIONS})
    logs.configure(settings.log_format)
    return serve(reading, settings)


def main() -> int:
    """Parse, serve, and turn an error into one message."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Serve a bundle over HTTP.")
    configure(parser)
    try:
        return run(parser.parse_args())
    except FullfunnelError as error:
        sys.stderr.write(f"service: {error}\n")
        return 1
    except KeyboardInterrupt:  # before the server, which takes signals itself, was there
        return 130


if __name__ == "__main__":
    sys.exit(main())
