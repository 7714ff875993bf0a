"""The backfill API as a process of its own, and an operator who may call it for all orgs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.credentials import entry, write_tokens
from tests.processes import Running, started

_TOKEN = "rpt_of-the-operator"
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_NO_LIMIT = "1000000"


@dataclass(frozen=True, slots=True)
class Service:
    """The service at work, and who calls it."""

    running: Running
    url: str
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        """Calls it for all orgs; gives the status and the body as it came."""
        async with self.http.request(method, self.url + path, json=body) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def serving(folder: Path, dsn: str, **variables: str) -> AsyncIterator[Service]:
    """Runs the service without limits of its rate, from when it serves; kills it at the end if it still runs."""
    tokens = folder / "tokens.json"
    write_tokens(tokens, entry(_TOKEN, name="operator", org="*", policies=["REPORT_ADMIN"]))
    settings = {
        "database_url": dsn, "reporting_api_host": "127.0.0.1", "reporting_api_port": "0",
        "reporting_api_credentials_file": str(tokens),
        "reporting_api_actions_per_minute": _NO_LIMIT, "reporting_api_actions_burst": _NO_LIMIT,
        "reporting_api_org_actions_per_minute": _NO_LIMIT, "reporting_api_org_actions_burst": _NO_LIMIT,
    } | variables  # fmt: skip
    headers = {"Authorization": f"Bearer {_TOKEN}"}
    async with (
        started("serve", folder=folder, module="backfill_api", **settings) as running,
        aiohttp.ClientSession(headers=headers, timeout=_TIMEOUT) as http,
    ):
        await running.has_logged("serving")
        yield Service(running, f"http://127.0.0.1:{running.logged('serving')[0]['port']}", http)
