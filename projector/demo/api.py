"""The backfill API beside the demo, as operators run it: a process of its own, with a token made for this demo."""

import asyncio
import contextlib
import json
import os
import shlex
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from pydantic import SecretStr

_START_SECONDS = 30.0
_GRACE_SECONDS = 5.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05

_POLICIES = ("REPORT_VIEW", "REPORT_MANAGE", "REPORT_ADMIN")

# Its input ends when our process is killed; the service then ends as it does at SIGTERM.
_WATCHDOG = 'read -r line; kill -TERM "$0"'


class DemoApiError(Exception):
    """The service could not be started; the message says where to look."""


class StoppedError(Exception):
    """Ctrl-C came before the service was ready."""


@dataclass(frozen=True, slots=True)
class DemoApi:
    """The service at work.

    Attributes:
        url: where it listens, on loopback.
        token: valid for all orgs and everything, as long as the demo runs.
        token_file: holds the token too.
        process: has ended once the demo is over; its `returncode` tells whether in order.
    """

    url: str
    token: str
    token_file: Path
    process: Process


@asynccontextmanager
async def running_api(folder: Path, database: SecretStr, stop: asyncio.Event) -> AsyncIterator[DemoApi]:
    """Runs the service for as long as the context lasts, from when it is ready.

    Args:
        folder: gets its log (`api.log`), the token (`api-token`) and the file of tokens (`api-tokens.json`).
        database: the migrated database.
        stop: gives the start up when set.

    Raises:
        DemoApiError: it did not start, or was not ready in 30 s.
        StoppedError: `stop` was set meanwhile.
    """
    token, token_file, tokens_file = await _make_token(folder)
    log = folder / "api.log"
    settings = {
        "DATABASE_URL": database.get_secret_value(), "REPORTING_API_HOST": "127.0.0.1", "REPORTING_API_PORT": "0",
        "REPORTING_API_CREDENTIALS_FILE": str(tokens_file),
        "REPORTING_LOG_FORMAT": "json", "REPORTING_LOG_LEVEL": "info",
        "REPORTING_SHUTDOWN_GRACE_SECS": str(_GRACE_SECONDS),
        # What the surroundings or a .env say of JWTs is for another service.
        "REPORTING_API_JWKS": "", "REPORTING_API_JWT_ISSUER": "", "REPORTING_API_JWT_AUDIENCE": "",
    }  # fmt: skip
    with log.open("wb") as output:
        # A session of its own: a terminal's Ctrl-C is for the demo, which ends the service in its turn.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "backfill_api", "serve", env=os.environ | settings, stdin=DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        async with _watched(process.pid):
            url = await _until_ready(process, log, stop)
            yield DemoApi(url, token, token_file, process)
    finally:
        await _end(process)


async def _make_token(folder: Path) -> tuple[str, Path, Path]:
    """Makes a token by the service's own command; gives it, the file that holds it, and the file of tokens."""
    policies = [word for policy in _POLICIES for word in ("--policy", policy)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backfill_api", "token", "demo", "--org", "*", *policies, stdin=DEVNULL, stdout=PIPE,
        stderr=PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode:
        raise DemoApiError(f"No token could be made for the backfill API: {err.decode(errors='replace').strip()}")
    token, entry = out.decode().splitlines()
    token_file, tokens_file = folder / "api-token", folder / "api-tokens.json"
    _write_secret(token_file, token)
    _write_secret(tokens_file, json.dumps({"tokens": [json.loads(entry)]}))
    return token, token_file, tokens_file


def _write_secret(path: Path, text: str) -> None:
    """Writes a new file that its owner alone may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")


@asynccontextmanager
async def _watched(process_id: int) -> AsyncIterator[None]:
    """Has the service end even if our own process is killed meanwhile."""
    watchdog = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", _WATCHDOG, str(process_id), stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        watchdog.kill()
        await watchdog.wait()


async def _until_ready(process: Process, log: Path, stop: asyncio.Event) -> str:
    """Waits until the service is ready; gives its URL."""
    deadline = time.monotonic() + _START_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while not stop.is_set():
            if process.returncode is not None or time.monotonic() > deadline:
                raise DemoApiError(f"The backfill API did not start. The last lines of {log}:\n{_tail(log)}")
            port = _port(log)
            url = f"http://127.0.0.1:{port}"
            if port and await _is_ready(session, url):
                return url
            await asyncio.sleep(_POLL_SECONDS)
    raise StoppedError


def _port(log: Path) -> int | None:
    """The port that the service tells in its log; None before."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # no JSON: not yet whole, or what a process says that cannot start
            entry = json.loads(line)
            if entry.get("message") == "serving":
                return int(entry["port"])
    return None


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url + "/readyz") as response:
            return response.status == 200  # noqa: PLR2004
    except (aiohttp.ClientError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])


async def _end(process: Process) -> None:
    """Ends the service as an orderly stop does, or by force where it does not end."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


def commands(api: DemoApi, org: str) -> Iterator[tuple[str, str]]:
    """What to paste into a shell: a few words about each operation, and a line that calls it for one org."""
    admin = "/v1/reports/admin"
    yield "enqueue what has no fact", _curl(api, org, f"{admin}/backfill", {"limit": 1000})
    yield "count what has none", _curl(api, org, f"{admin}/backfill", {"limit": 1000, "dry_run": True})
    yield "project what is due", _curl(api, org, "/v1/reports/projector/run?limit=100", post=True)
    yield "lag and failures", _curl(api, org, f"{admin}/diagnostics")
    yield "failed rows", _curl(api, org, f"{admin}/outbox?status=dead&limit=10")
    yield "requeue, but only count", _curl(api, org, f"{admin}/outbox/requeue", {"all_dead": True, "dry_run": True})
    yield "who did what", _curl(api, org, f"{admin}/actions?limit=10")
    yield (
        "the same from the command line, until nothing is left",
        (
            f"REPORTING_API_URL={api.url} REPORTING_API_TOKEN_FILE={shlex.quote(str(api.token_file.resolve()))} "
            f"{shlex.quote(sys.executable)} -m projector backfill --org {org} --mode all --source-type usage_ledger"
            " --until-done"
        ),
    )


def _curl(api: DemoApi, org: str, path: str, body: dict[str, object] | None = None, *, post: bool = False) -> str:
    words = ["curl", "-sS", api.url + path]
    if post:
        words += ["-X", "POST"]
    words += ["-H", f"Authorization: Bearer {api.token}", "-H", f"X-Org-Id: {org}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return shlex.join(words)
