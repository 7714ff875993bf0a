"""Daemons that are replaced one after another, under load: lag stays bounded, no row is projected twice (promise 1)."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.audit import install_audit, verify_audit
from tests.chaos.fleet import Fleet
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened

_DAEMONS = 3
_LAG = """
    SELECT COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(next_attempt_at)), 0)::float8
    FROM reporting_outbox
    WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()
"""
_LOOK_SECONDS = 0.02
# Two of three go on projecting, so lag stays what it is: tens of milliseconds. The rest is slack for a busy machine.
_MEDIAN_SECONDS = 0.5
_LONGEST_SECONDS = 5.0


@asynccontextmanager
async def _lag_watched(dsn: str) -> AsyncIterator[list[float]]:
    """Looks at the age of the oldest due row, over and over; gives what was seen, in seconds."""
    seen: list[float] = []

    async def watch() -> None:
        async with opened(dsn) as connection:
            while True:
                seen.append(await connection.fetchval(_LAG))
                await asyncio.sleep(_LOOK_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_replacing_daemons_one_after_another_keeps_lag_bounded_and_projects_no_row_twice(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    writers = Writers(database, chaos.random("writers of a rolling restart"), Pace(pause=0.03))
    await install_audit(database)
    async with Fleet(database, tmp_path) as fleet, asyncio.TaskGroup() as group:
        await fleet.start(_DAEMONS)
        group.create_task(writers.run())
        async with _lag_watched(database) as lags:
            for _ in range(chaos.times(5, 1)):
                for daemon in list(fleet.running):
                    assert await fleet.stop(daemon) == 0
                    await fleet.start()
        writers.stop.set()
        await settled(database)
        assert await fleet.stop_all() == [0] * _DAEMONS
    assert statistics.median(lags) < _MEDIAN_SECONDS
    assert max(lags) < _LONGEST_SECONDS
    await verify(database)
    await verify_audit(database)
