"""Transactions that commit long after they have written, out of order, or not at all: no cursor passes them over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from projector.sqlfile import load_sql
from tests.backfills import add_one_of_each, add_postings
from tests.chaos.fleet import Fleet
from tests.chaos.servers import ChaosServer
from tests.chaos.service import Service, serving
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened
from tests.platform_rows import add_org

_LATE = load_sql(__file__, "late.sql")
_MOST_CALLS = 500
_ROLLED_BACK = 0.2


@asynccontextmanager
async def platform(chaos: Chaos, database: str) -> AsyncIterator[str]:
    """A database that takes as many connections as there are writers; gives its DSN."""
    async with AsyncExitStack() as stack:
        if chaos.full:
            server = ChaosServer(max_connections="400", track_commit_timestamp="on")
            database = (await stack.enter_async_context(server)).dsn
        yield database


@asynccontextmanager
async def pinned(dsn: str, *, wanted: bool) -> AsyncIterator[None]:
    """A transaction elsewhere that keeps vacuum from removing what dies meanwhile; or nothing."""
    async with opened(dsn) as connection:
        if wanted:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        yield


@pytest.mark.parametrize(
    "pin", [False, pytest.param(True, marks=pytest.mark.full_only)], ids=["vacuum works", "vacuum is held back"]
)
async def test_rows_that_are_committed_late_are_all_projected(
    chaos: Chaos, database: str, tmp_path: Path, pin: bool
) -> None:
    longest = chaos.times(30, 1)
    pace = Pace(writers=chaos.times(200, 40), orgs=5, rolled_back=_ROLLED_BACK)
    async with platform(chaos, database) as dsn, pinned(dsn, wanted=pin), Fleet(dsn, tmp_path) as fleet:
        writers = Writers(dsn, chaos.random(f"late commits {pin}"), pace)
        await fleet.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(writers.run())
            # Quick at first, until each has sessions to write to.
            await asyncio.sleep(chaos.times(3, 1))
            pace.longest_commit = longest
            await asyncio.sleep(longest)
            writers.stop.set()
        await settled(dsn, 90)
        assert await fleet.stop_all() == [0]
        assert writers.committed > pace.writers // 2
        assert await verify(dsn) >= writers.committed // 2
        if chaos.full:
            await _tell_delays(dsn)


async def _tell_delays(dsn: str) -> None:
    async with opened(dsn) as connection:
        for late in (0.0, 2.0, 20.0):
            (record,) = await connection.fetch(_LATE, late)
            print(f"rows at least {late:g} s late, commit to fact: {dict(record)}")  # noqa: T201


async def test_backfills_reach_sources_that_are_committed_late(chaos: Chaos, database: str, tmp_path: Path) -> None:
    longest = chaos.times(30, 1)
    random = chaos.random("late sources")
    async with (
        platform(chaos, database) as dsn,
        Fleet(dsn, tmp_path) as fleet,
        serving(tmp_path, dsn) as service,
        opened(dsn) as connection,
    ):
        await add_postings(connection, chaos.times(30_000, 500))
        await fleet.start()
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            writers = [
                group.create_task(_write_and_forget(dsn, Random(random.random()), longest, stop))
                for _ in range(chaos.times(200, 20))
            ]
            asking = group.create_task(_backfill_until(service, asyncio.gather(*writers)))
            await asyncio.sleep(longest)
            stop.set()
            assert await asking > 0
        await _backfill_until_done(service)
        await settled(dsn)
        assert await fleet.stop_all() == [0]
        assert sum(writer.result() for writer in writers) > len(writers) // 2
        assert await verify(dsn) > 0
        assert await _backfill(service) == 0


async def _write_and_forget(dsn: str, random: Random, longest: float, stop: asyncio.Event) -> int:
    """Writes sources that nobody enqueues, and commits late or not at all; gives how often it committed."""
    committed = 0
    async with opened(dsn) as connection:
        org_id = await add_org(connection, random.randrange(1, 4))
        while not stop.is_set():
            transaction = connection.transaction()
            await transaction.start()
            await add_one_of_each(connection, org_id)
            await asyncio.sleep(random.uniform(0, longest))
            if random.random() < _ROLLED_BACK:
                await transaction.rollback()
            else:
                await transaction.commit()
                committed += 1
    return committed


async def _backfill(service: Service) -> int:
    status, text = await service.ask("POST", "/v1/reports/admin/backfill", {"org_id": "*", "limit": 2000})
    assert status == 200, text
    return int(json.loads(text)["enqueued"])


async def _backfill_until(service: Service, done: asyncio.Future[list[int]]) -> int:
    """Calls and calls, whatever is found, until something is done; gives the rows enqueued."""
    rows = 0
    while not done.done():
        rows += await _backfill(service)
        await asyncio.sleep(0.02)
    return rows


async def _backfill_until_done(service: Service) -> None:
    for _ in range(_MOST_CALLS):
        if not await _backfill(service):
            return
    raise AssertionError(f"after {_MOST_CALLS} calls something is still enqueued")
