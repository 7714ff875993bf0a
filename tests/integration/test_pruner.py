"""Completed rows go after the retention, and nothing else ever does (design: promises 3 and 8; outbox.md: states)."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from projector.database import open_pool
from projector.pruner import Pruner
from projector.registry import Registry
from tests.daemons import running, settings_for
from tests.obstacles import enqueue_tools, set_columns, wait_until
from tests.platform_rows import EPOCH
from tests.pruning import OLD, RETENTION, YOUNG, Clock, add_rows, left, pruned, pruner_on


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pruner(database: str, registry: Registry, clock: Clock) -> AsyncIterator[Pruner]:
    pool = await open_pool(settings_for(database), 1)
    yield pruner_on(pool, registry, clock)
    pool.terminate()


async def test_completed_rows_go_after_the_retention_and_younger_ones_stay(
    connection: asyncpg.Connection, pruner: Pruner
) -> None:
    await add_rows(connection, 25)
    young = await add_rows(connection, 25, created=YOUNG)
    assert await pruner.round() == 25
    assert await left(connection) == young
    assert pruned(pruner) == 25


async def test_what_counts_is_when_a_row_was_settled(connection: asyncpg.Connection, pruner: Pruner) -> None:
    late = await add_rows(connection, 3, created=OLD, settled=YOUNG)
    assert await pruner.round() == 0
    assert await left(connection) == late


@pytest.mark.parametrize("status", ["pending", "failed", "processing"])
@pytest.mark.parametrize("due", ["-infinity", "infinity"])
@pytest.mark.parametrize("retention", [RETENTION, 0.0])
async def test_rows_that_are_not_completed_stay_however_old(
    connection: asyncpg.Connection, pruner: Pruner, status: str, due: str, retention: float
) -> None:
    rows = await add_rows(connection, 15, status, created=timedelta(days=4000))
    await connection.execute(f"UPDATE reporting_outbox SET next_attempt_at = '{due}', attempts = 10")
    pruner.retention = retention
    await add_rows(connection, 15)
    assert await pruner.round() == 15
    assert await left(connection) == rows


async def test_without_a_retention_all_completed_rows_go(connection: asyncpg.Connection, pruner: Pruner) -> None:
    pruner.retention = 0
    await add_rows(connection, 15, created=timedelta(seconds=1))
    assert await pruner.round() == 15
    assert await left(connection) == []


async def test_an_empty_outbox_is_no_obstacle(pruner: Pruner) -> None:
    assert await pruner.round() == 0
    assert await pruner.round() == 0


async def test_a_round_begins_where_the_last_one_ended_and_a_sweep_an_hour_later_at_the_bottom(
    connection: asyncpg.Connection, pruner: Pruner, clock: Clock
) -> None:
    behind = await add_rows(connection, 15, "pending")
    await add_rows(connection, 15)
    await add_rows(connection, 5, created=YOUNG)
    assert await pruner.round() == 15
    await set_columns(connection, behind, status="completed")  # as if they had been settled long ago
    later = await add_rows(connection, 5)
    clock.now = 3599
    assert await pruner.round() == 5
    assert not set(later) & set(await left(connection))
    assert set(behind) <= set(await left(connection))
    clock.now = 3600
    assert await pruner.round() == 15
    assert len(await left(connection)) == 5
    clock.now = 3601
    assert await pruner.round() == 0


async def test_the_cursor_stays_before_rows_that_are_still_young(
    connection: asyncpg.Connection, pruner: Pruner
) -> None:
    old = await add_rows(connection, 13)
    young = await add_rows(connection, 4, created=YOUNG)
    assert await pruner.round() == 13
    assert pruner.cursor == old[-1]
    await set_columns(connection, young, created_at=EPOCH, updated_at=EPOCH)
    assert await pruner.round() == 4
    assert pruner.cursor == young[-1]


@pytest.mark.parametrize("dead", [0, 3])
async def test_a_sweep_that_removes_nothing_leaves_the_cursor_where_it_is(
    connection: asyncpg.Connection, pruner: Pruner, clock: Clock, dead: int
) -> None:
    await add_rows(connection, dead, "failed")
    old = await add_rows(connection, 13)
    await add_rows(connection, 14, created=YOUNG)
    await pruner.round()
    clock.now = 3600
    assert await pruner.round() == 0
    assert pruner.cursor == old[-1]


async def test_rows_without_end_at_the_bottom_do_not_stop_the_walk(
    connection: asyncpg.Connection, pruner: Pruner
) -> None:
    dead = await add_rows(connection, 45, "failed")
    await add_rows(connection, 45)
    assert await pruner.round() == 45
    assert await left(connection) == dead


async def test_it_uses_no_more_than_a_quarter_of_the_time(connection: asyncpg.Connection, pruner: Pruner) -> None:
    await add_rows(connection, 55)
    pruner.clock = Clock(step=0.05)  # so long each slice seems to take
    started = time.monotonic()
    assert await pruner.round() == 55
    assert time.monotonic() - started >= 5 * 3 * 0.05


async def test_the_daemon_prunes_beside_its_workers(
    database: str, connection: asyncpg.Connection, registry: Registry
) -> None:
    await add_rows(connection, 1500)
    settings = settings_for(database, reporting_outbox_retention_secs=RETENTION)
    async with running(settings, registry) as projector:
        (row,) = await enqueue_tools(connection, ["search"])

        async def all_gone() -> bool:
            return await left(connection) == [row]

        await wait_until(all_gone)
        assert projector.metric("reporting_outbox_pruned_total") == 1500
        await projector.has_logged("completed rows pruned")
    assert projector.task.result() == 0
