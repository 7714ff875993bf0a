"""The backfill API as a process that is attacked: its answers, its life and its memory are watched meanwhile."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from backfill_api.problems import STATUSES, Code
from tests.api import Answer, assert_problem
from tests.integration.test_api_process import serving
from tests.processes import Running

BACKFILL = "/v1/reports/admin/backfill"
UNLIMITED = {"reporting_api_org_actions_burst": "1000000", "reporting_api_actions_burst": "1000000"}
"""Settings for a case that is not about the rate limits."""

_LOOK_SECONDS = 0.1
_PATIENCE = 5.0
_MIB = 1024 * 1024
# It begins with some 70 MiB.
_MOST_MEMORY = 200.0


@dataclass
class Attacked:
    """A service at work.

    Attributes:
        process: itself.
        url: where it is.
        session: for requests; of as many connections as are asked for.
        slowest: the longest that /livez took, in seconds.
        memory: the most resident memory that was seen, in MiB.
    """

    process: Running
    url: str
    session: aiohttp.ClientSession
    slowest: float = 0.0
    memory: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    async def request(
        self, method: str, path: str, *, by: str = "admin", body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request by one of `tests.api.CALLERS`; its answer is as the contract has it, and counted."""
        sent = {"Authorization": f"Bearer rpt_of-{by}", **(headers or {})}
        async with self.session.request(method, self.url + path, headers=sent, json=body) as response:
            answer = Answer(response.status, response.headers, await response.read())
        assert_contract(answer)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer

    async def backfill(self, org: str, limit: int) -> Answer:
        """One backfill of an org."""
        return await self.request("POST", BACKFILL, by="platform", body={"limit": limit}, headers={"X-Org-Id": org})

    async def watch(self) -> None:
        """Asks whether it lives, and how large it is, again and again."""
        itself = psutil.Process(self.process.process.pid)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PATIENCE)) as session:
            while True:
                asked = time.monotonic()
                async with session.get(self.url + "/livez") as response:
                    assert response.status == 200
                self.slowest = max(self.slowest, time.monotonic() - asked)
                self.memory = max(self.memory, itself.memory_info().rss / _MIB)
                await asyncio.sleep(_LOOK_SECONDS)


def assert_contract(answer: Answer) -> None:
    """An answer is a success, or a problem in the contract's shape; of the 5xx there is 503 alone."""
    if 200 <= answer.status < 300:
        return
    body = json.loads(answer.body)
    assert_problem(answer, STATUSES[Code(body["code"])], body["code"])
    assert answer.status < 500 or answer.status == 503, body


@asynccontextmanager
async def attacked(folder: Path, dsn: str, **settings: str) -> AsyncIterator[Attacked]:
    """Runs the service; at the end it must still live, have stayed small and have logged no error of its own.

    Args:
        folder: for its log and its tokens.
        dsn: of its database.
        settings: its variables.
    """
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        serving(folder, dsn, **settings) as (process, url),
        aiohttp.ClientSession(connector=connector) as session,
    ):
        api = Attacked(process, url, session)
        watching = asyncio.create_task(api.watch())
        try:
            yield api
        finally:
            watching.cancel()
            watched = (await asyncio.gather(watching, return_exceptions=True))[0]
        assert isinstance(watched, asyncio.CancelledError), watched
        assert api.memory < _MOST_MEMORY
        wrong = [line for line in process.logged("request") if line["status"] >= 500 and line["status"] != 503]
        assert not wrong, wrong[:5]
        process.send(signal.SIGTERM)
        assert await process.end() == 0


@asynccontextmanager
async def doomed(folder: Path, dsn: str, **settings: str) -> AsyncIterator[Attacked]:
    """Runs the service for a case that kills it."""
    async with serving(folder, dsn, **settings) as (process, url), aiohttp.ClientSession() as session:
        yield Attacked(process, url, session)
