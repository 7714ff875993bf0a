"""Daemons beside an older program that leases rows by `processing`, and dies or oversleeps (promises 2 and 3)."""

import asyncio
import signal
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg

from tests.chaos.audit import install_audit, settled_by, verify_audit
from tests.chaos.fleet import Fleet
from tests.chaos.frozen import freeze, thaw
from tests.chaos.older_program import APPLICATION_NAME as OLDER
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened, wait_until
from tests.processes import Running, started

_LEASED = "SELECT id FROM reporting_outbox WHERE status = 'processing'"
_WAITING = "SELECT count(*) FROM reporting_outbox WHERE status IN ('pending', 'failed')"
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
# Time passes.
_AGE = "UPDATE reporting_outbox SET claimed_at = claimed_at - make_interval(mins => $2) WHERE id = ANY ($1::uuid[])"
_LEASE_MINUTES = 15
_QUICK = Pace(writers=6, pause=0.005)


async def _leased(watcher: asyncpg.Connection) -> set[UUID]:
    return {record["id"] for record in await watcher.fetch(_LEASED)}


async def _freeze_with_rows(older: Running, watcher: asyncpg.Connection, random: Random) -> None:
    """Freezes the older program at a random instant at which it holds some rows, after it has settled some."""
    before, left = await settled_by(watcher, OLDER), await _leased(watcher)

    async def holds_rows() -> bool:
        await asyncio.sleep(random.uniform(0, 0.03))
        freeze([older])
        if len(await _leased(watcher) - left) > 1 and await settled_by(watcher, OLDER) > before:
            return True
        thaw([older])
        return False

    await wait_until(holds_rows, 30)


async def _is_disconnected(watcher: asyncpg.Connection) -> None:
    """Waits until the server has done the last that the older program had asked for."""

    async def none_is_left() -> bool:
        return bool(await watcher.fetchval(_CONNECTED, OLDER) == 0)

    await wait_until(none_is_left)


async def _let_leases_run_out(watcher: asyncpg.Connection, rows: set[UUID]) -> None:
    """Fifteen minutes pass for these rows; waits until a daemon has released them."""
    await watcher.execute(_AGE, rows, _LEASE_MINUTES)

    async def released() -> bool:
        return not rows & await _leased(watcher)

    await wait_until(released)


async def test_an_older_program_that_dies_with_its_leases_costs_no_row(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    random = chaos.random("deaths of the older program")
    writers = Writers(database, chaos.random("writers beside the older program"), _QUICK)
    await install_audit(database)
    async with (
        opened(database) as watcher,
        Fleet(database, tmp_path, reporting_sample_interval_secs="0.2") as fleet,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        await fleet.start(2)
        left: set[UUID] = set()
        for _ in range(chaos.times(12, 1)):
            async with started(folder=tmp_path, module="tests.chaos.older_program", DATABASE_URL=database) as older:
                await _freeze_with_rows(older, watcher, random)
                older.send(signal.SIGKILL)
                await older.end()
                await _is_disconnected(watcher)
            left |= await _leased(watcher)
        writers.stop.set()

        async def all_else_is_settled() -> bool:
            return bool(await watcher.fetchval(_WAITING) == 0)

        await wait_until(all_else_is_settled, 30)
        assert await _leased(watcher) == left, "a lease was taken before its time"
        first, *others = left
        await watcher.execute(_AGE, others, _LEASE_MINUTES - 1)
        await _let_leases_run_out(watcher, {first})
        assert await _leased(watcher) == set(others), "a lease was taken before its time"
        await watcher.execute(_AGE, others, 1)
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    await verify(database)
    await verify_audit(database)


async def test_an_older_program_that_outsleeps_its_leases_writes_nothing_wrong(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    random = chaos.random("sleep of the older program")
    writers = Writers(database, chaos.random("writers beside the sleeper"), _QUICK)
    await install_audit(database)
    async with (
        opened(database) as watcher,
        Fleet(database, tmp_path, reporting_sample_interval_secs="0.2") as fleet,
        started(folder=tmp_path, module="tests.chaos.older_program", DATABASE_URL=database) as older,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        await fleet.start(2)
        for _ in range(chaos.times(20, 1)):
            await _freeze_with_rows(older, watcher, random)
            await _let_leases_run_out(watcher, await _leased(watcher))
            thaw([older])
        writers.stop.set()
        await settled(database)
        assert await fleet.stop_all() == [0, 0]
    await verify(database)
    await verify_audit(database)
