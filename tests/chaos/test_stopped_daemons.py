"""Daemons that are stopped (SIGSTOP) in the midst of a batch, and go on long after: the rows were others' meanwhile.

A stopped process cannot tell that it is. Its transaction keeps its rows until the server ends it: nobody else has them
before, everybody at once after, and what the process does when it goes on has no transaction any more (promises 1, 9).
"""

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from projector.database import APPLICATION_NAME, Timeouts
from projector.settings import SharedSettings
from tests.chaos.audit import install_audit, settled_by, verify_audit
from tests.chaos.fleet import Fleet
from tests.chaos.frozen import batches_under_way, freeze_in_batch, thaw
from tests.chaos.share import Chaos
from tests.chaos.verify import settled, verify
from tests.chaos.writers import Pace, Writers
from tests.obstacles import opened, statuses, wait_until

_DUE = "SELECT id FROM reporting_outbox WHERE status IN ('pending', 'failed') AND next_attempt_at <= now()"
_FREE = "SELECT id FROM reporting_outbox WHERE status IN ('pending', 'failed') FOR UPDATE SKIP LOCKED"
_CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1"
# The server ends a transaction that is left idle; the driver gives a statement up last of all.
_IDLE_SECONDS = Timeouts(statement=0).idle
_LONGEST_TIMEOUT_SECONDS = SharedSettings.model_fields["reporting_statement_timeout_secs"].default + 10
_GIVEN_UP = "batch given up, nothing was changed; trying again"


async def _ids(watcher: asyncpg.Connection, query: str) -> set[UUID]:
    return {record["id"] for record in await watcher.fetch(query)}


async def _completed(watcher: asyncpg.Connection, rows: Collection[UUID], seconds: float) -> float:
    """Waits until rows are completed; gives the seconds that took."""
    began = time.monotonic()

    async def are_completed() -> bool:
        return set(await statuses(watcher, list(rows))) <= {"completed"}

    await wait_until(are_completed, seconds)
    return time.monotonic() - began


async def _at_work(watcher: asyncpg.Connection, frozen: set[int]) -> None:
    """Waits until others than the frozen batches have settled rows, or have claimed some."""
    before = await settled_by(watcher, APPLICATION_NAME)

    async def are_at_work() -> bool:
        more = await settled_by(watcher, APPLICATION_NAME) > before
        return more or bool(await batches_under_way(watcher) - frozen)

    await wait_until(are_at_work)


async def _works_alone(watcher: asyncpg.Connection, seconds: float) -> None:
    """Waits until all that is due now has been projected, by whoever is left."""
    await _completed(watcher, await _ids(watcher, _DUE), seconds)


async def test_a_stopped_daemon_keeps_its_rows_until_the_server_ends_its_batch_and_then_works_on(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    random = chaos.random("stops")
    writers = Writers(database, chaos.random("writers of stops"))
    await install_audit(database)
    async with (
        opened(database) as watcher,
        Fleet(database, tmp_path, reporting_projector_limit="20") as fleet,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        (stopped,) = await fleet.start()
        for number in range(chaos.times(8, 2)):
            batches = await freeze_in_batch([stopped], watcher, random)
            held = await _ids(watcher, _DUE) - await _ids(watcher, _FREE)
            connections = [record["pid"] for record in await watcher.fetch(_CONNECTIONS, APPLICATION_NAME)]
            (other,) = await fleet.start()
            await _at_work(watcher, batches)
            assert "completed" not in await statuses(watcher, list(held)), "a row that another held was projected"
            assert await batches_under_way(watcher) >= batches
            if number % 2 == 0:
                await watcher.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", connections)
                await _completed(watcher, held, 30)
            thaw([stopped])
            await _completed(watcher, held, 30)
            assert await fleet.stop(other) == 0
            await _works_alone(watcher, 30)
        writers.stop.set()
        await settled(database)
        assert len(stopped.logged(_GIVEN_UP)) > 0
        assert await fleet.stop_all() == [0]
    await verify(database)
    await verify_audit(database)


@pytest.mark.full_only
async def test_a_daemon_that_is_stopped_for_longer_than_any_timeout_loses_its_rows_to_others_and_works_on(
    chaos: Chaos, database: str, tmp_path: Path
) -> None:
    # Few sessions wait for the facts that the stopped batch has locked.
    writers = Writers(database, chaos.random("writers of a long stop"), Pace(pause=0.05))
    await install_audit(database)
    async with (
        opened(database) as watcher,
        Fleet(database, tmp_path, reporting_projector_limit="20") as fleet,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(writers.run())
        (stopped,) = await fleet.start()
        await freeze_in_batch([stopped], watcher, chaos.random("long stop"))
        frozen_at = time.monotonic()
        held = await _ids(watcher, _DUE) - await _ids(watcher, _FREE)
        others = await fleet.start(2)
        await _completed(watcher, held, _IDLE_SECONDS + 30)
        taken_after = time.monotonic() - frozen_at
        await asyncio.sleep(_LONGEST_TIMEOUT_SECONDS + 5 - taken_after)
        thaw([stopped])
        await stopped.has_logged(_GIVEN_UP)
        assert [await fleet.stop(other) for other in others] == [0, 0]
        await _works_alone(watcher, 60)
        writers.stop.set()
        await settled(database)
        assert await fleet.stop_all() == [0]
    assert _IDLE_SECONDS - 1 < taken_after < _IDLE_SECONDS + 15
    await verify(database)
    await verify_audit(database)
