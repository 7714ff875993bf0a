"""`projector backfill`: asks the backfill API to enqueue what has no fact yet. Needs no database.

Exit status: 0 done, 1 the service refused, 2 wrong usage or settings, 3 the service could not be reached or stays
unavailable, 130 Ctrl-C.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
from pydantic import ValidationError
from rich.console import Console

from projector.api_settings import ApiSettings, load_api_settings
from projector.backfill_calls import Calls, Tally
from projector.backfill_client import BackfillClient, CallError
from projector.progress import RowsProgress
from projector.settings import SettingsError
from schemas.reports import MOST_BACKFILLED, BackfillMode, ReportingBackfillRequest, ReportingBackfillResult

DONE, REFUSED, WRONG_USAGE, UNAVAILABLE = range(4)
INTERRUPTED = 130

ALL_ORGS = "*"

_WRONG_STATUSES = frozenset({400, 401, 422})
_ADVICE = {
    400: "Check the options; --org chooses the org.",
    401: "Check REPORTING_API_TOKEN or REPORTING_API_TOKEN_FILE.",
    403: "Use a token that has the policy REPORT_ADMIN there.",
    404: "Check --org and REPORTING_API_URL.",
    409: "Another backfill of this org is at work: call again when it has ended; --until-done waits for it.",
    422: "Check the options.",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "backfill", help="have the backfill API enqueue sources that have no fact yet",
        description="Calls the backfill API at REPORTING_API_URL with REPORTING_API_TOKEN or REPORTING_API_TOKEN_FILE.",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=_limit, default=1000, metavar="N",
        help=f"the most rows that one call enqueues: 1 to {MOST_BACKFILLED}, by default 1000",
    )  # fmt: skip
    parser.add_argument("--org", type=_org, help="public id of the org, or '*' for all; by default the token's own")
    parser.add_argument(
        "--source-type", action="extend", nargs="+", metavar="TYPE", dest="source_types", help="only these source types"
    )
    moment = "an ISO 8601 date or moment; UTC unless it has an offset"
    parser.add_argument("--from", type=_moment, metavar="T", help=f"only sources created from then on: {moment}")
    parser.add_argument("--to", type=_moment, metavar="T", help="only sources created before then")
    parser.add_argument(
        "--mode", choices=[mode.value for mode in BackfillMode],
        help="missing: sources that lack a fact, the default; stale: also those with older facts; all: every one, once",
    )  # fmt: skip
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--dry-run", action="store_true", help="count what would be enqueued, change nothing")
    more.add_argument(
        "--until-done", action="store_true", help="call again until nothing is left; best with a large --limit"
    )
    parser.add_argument("--json", action="store_true", help="tell the result as JSON, as is done when piped")


def _limit(text: str) -> int:
    if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MOST_BACKFILLED:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_BACKFILLED}: {text!r}")


def _org(text: str) -> str:
    if text == ALL_ORGS or re.fullmatch("org_[0-9a-fA-F]{32}", text):
        return text.lower()
    raise argparse.ArgumentTypeError(f"must be org_ and 32 hexadecimal digits, or '*' for all orgs: {text!r}")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"must be like 2026-05-06 or 2026-05-06T10:00:00Z: {text!r}") from None


def backfill(options: argparse.Namespace, clock: Callable[[], float] = time.monotonic) -> int:
    """Runs the command; gives the exit status.

    Args:
        options: as `add_parser` has them.
        clock: seconds that never go back.
    """
    try:
        settings, request = load_api_settings(), _request(options)
    except SettingsError as error:
        return _complain(str(error), WRONG_USAGE)
    tally, started = Tally(), clock()
    status, complaint = DONE, ""
    try:
        asyncio.run(_call(options, settings, request, tally))
    except CallError as error:
        status, complaint = _exit_status(error), f"{error}. {_advice(error, settings, request)}"
    except KeyboardInterrupt:
        status, complaint = INTERRUPTED, "stopped; what was enqueued stays"
    if status in {DONE, INTERRUPTED} or tally.calls:
        _tell(options, tally, clock() - started, done=status == DONE)
    return _complain(complaint, status) if complaint else status


def _request(options: argparse.Namespace) -> ReportingBackfillRequest:
    """The request that the options stand for, with nothing in it that was not asked for.

    Raises:
        SettingsError: they do not go together.
    """
    asked = {
        "limit": options.limit, "source_types": options.source_types, "from": getattr(options, "from"),
        "to": options.to, "mode": BackfillMode(options.mode) if options.mode else None,
        "dry_run": options.dry_run or None, "org_id": ALL_ORGS if options.org == ALL_ORGS else None,
    }  # fmt: skip
    try:
        return ReportingBackfillRequest.model_validate({name: value for name, value in asked.items() if value})
    except ValidationError as error:
        raise SettingsError("; ".join(problem["msg"] for problem in error.errors())) from None


async def _call(
    options: argparse.Namespace, settings: ApiSettings, request: ReportingBackfillRequest, tally: Tally
) -> None:
    visible = sys.stdout.isatty()
    with RowsProgress("backfilling", None, visible) as progress:

        def on_result(result: ReportingBackfillResult) -> None:
            progress.advance(result.enqueued)
            progress.note(_counts(tally))

        def on_wait(error: CallError, seconds: float) -> None:
            text = f"waiting {seconds:g} s: {error}"
            if visible:
                progress.note(text)
            else:
                _complain(text, DONE)

        # Each call may go to another replica; a connection that is kept might be one that is being shut down.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            org = None if options.org == ALL_ORGS else options.org
            client = BackfillClient(session, settings.reporting_api_url, settings.reporting_api_token, org)
            calls = Calls(
                lambda: client.backfill(request), tally, asyncio.sleep, on_result, on_wait, goes_on=not request.dry_run
            )
            await (calls.until_done() if options.until_done else calls.once())


def _exit_status(error: CallError) -> int:
    if error.status is None or error.status >= 500:  # noqa: PLR2004
        return UNAVAILABLE
    return WRONG_USAGE if error.status in _WRONG_STATUSES or error.status < 400 else REFUSED  # noqa: PLR2004


def _advice(error: CallError, settings: ApiSettings, request: ReportingBackfillRequest) -> str:
    """What to do about a failure, and what it leaves open."""
    perhaps = "It may have enqueued rows all the same. " if error.uncertain and not request.dry_run else ""
    if error.status is None:
        return f"{perhaps}Check REPORTING_API_URL, and whether the service runs."
    if error.status == 401 and settings.reporting_api_token is None:  # noqa: PLR2004
        return "Set REPORTING_API_TOKEN or REPORTING_API_TOKEN_FILE."
    if error.incomplete:
        return "Narrow it down with --source-type, --from and --to, or a smaller --limit."
    if error.retry_after is not None:
        return f"{perhaps}Call again in {error.retry_after} s."
    if error.status >= 500:  # noqa: PLR2004
        return f"{perhaps}Call again later; the service's log says more."
    return perhaps + _ADVICE.get(error.status, "Check REPORTING_API_URL.")


def _tell(options: argparse.Namespace, tally: Tally, seconds: float, *, done: bool) -> None:
    if options.json or not sys.stdout.isatty():
        told = {
            "enqueued": tally.enqueued, **tally.by_type(), "calls": tally.calls, "uncertain": tally.uncertain,
            "seconds": round(seconds, 3), "dry_run": options.dry_run, "done": done,
        }  # fmt: skip
        print(json.dumps(told), flush=True)  # noqa: T201
        return
    what = "would be enqueued" if options.dry_run else "enqueued"
    calls = "1 call" if tally.calls == 1 else f"{tally.calls:,} calls"
    line = f"{tally.enqueued:,} rows {what} by {calls} in {seconds:.1f} s: {_counts(tally)}"
    if tally.uncertain and not options.dry_run:
        line += f"; {tally.uncertain:,} calls without an answer may have enqueued more"
    if done and tally.enqueued >= options.limit and not options.until_done:
        line += ". That is the limit: there may be more"
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _counts(tally: Tally) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in tally.by_type().items())


def _complain(message: str, status: int) -> int:
    """Tells it on standard error; gives the status back."""
    print(f"projector: {message}", file=sys.stderr)  # noqa: T201
    return status
