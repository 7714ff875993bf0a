"""The command line: `backfill-api serve | token`.

Exit status: 0 done, 1 an unclean stop, 2 wrong usage or settings. A database that is away is no reason to end: /readyz
says so, and the service goes on once it is back.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence

from backfill_api.access import make_authenticator
from backfill_api.caller import Policy
from backfill_api.service import Service
from backfill_api.settings import load_service_settings
from backfill_api.tokens import TokenFileError, new_entry
from projector.health import PortError
from projector.logs import configure_logs
from projector.projections import load_registry
from projector.registry import RegistryError
from projector.settings import SettingsError
from projector.signals import run_until_signal

DONE, UNCLEAN, WRONG_USAGE = range(3)

_MOST_FILES = 65_536


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command; gives the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "token":
            return _token(options)
        return _serve(options)
    except (SettingsError, PortError, TokenFileError) as error:
        _complain(str(error))
        return WRONG_USAGE
    except RegistryError as error:
        _complain(str(error))
        return UNCLEAN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="backfill-api",
        description="The operators' service of the reporting projector. Settings come from the environment and .env.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve until SIGTERM or SIGINT")
    serve.add_argument(
        "--insecure", action="store_true", help="let everybody do everything; only on loopback, without credentials"
    )
    token = commands.add_parser("token", help="make a token, and its entry for the file of tokens")
    token.add_argument("name", metavar="NAME", help="what logs and the audit call its holder")
    token.add_argument(
        "--org", action="append", required=True, metavar="ORG",
        help="an org it is for: org_ and 32 hexadecimal digits, or * for all; may be repeated",
    )  # fmt: skip
    token.add_argument(
        "--policy", action="append", required=True, choices=list(Policy), metavar="POLICY",
        help=f"what it may do: {', '.join(Policy)}; may be repeated",
    )  # fmt: skip
    return parser


def _token(options: argparse.Namespace) -> int:
    token, entry = new_entry(options.name, options.org, options.policy)
    print("The token, shown only now:", file=sys.stderr)  # noqa: T201
    print(token)  # noqa: T201
    print('Its entry for the list "tokens" in the file of REPORTING_API_CREDENTIALS_FILE:', file=sys.stderr)  # noqa: T201
    print(json.dumps(entry))  # noqa: T201
    return DONE


def _serve(options: argparse.Namespace) -> int:
    settings = load_service_settings()
    log = configure_logs(settings.reporting_log_format, settings.reporting_log_level)
    authenticator = make_authenticator(settings, insecure=options.insecure, clock=time.monotonic, log=log)
    _allow_many_connections()
    service = Service(settings, load_registry(), authenticator, log)
    stopping = "stopping: requests at work end, none begins"
    return asyncio.run(run_until_signal(service, stopping=stopping, at_once="second signal, stopping at once"))


def _allow_many_connections() -> None:
    """Raises the limit of open files as far as it goes: the usual 1,024 would be used up by as many idle clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _complain(message: str) -> None:
    print(f"backfill-api: {message}", file=sys.stderr)  # noqa: T201
