"""Pruners beside applications and beside each other, and what faults do to them (design: promises 3 and 9)."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from projector import pruner as module
from projector.database import open_pool
from projector.pruner import LOCK_KEY, PRUNE, Pruner
from projector.registry import Registry
from tests.daemons import captured_log, settings_for
from tests.obstacles import opened, set_columns, wait_until, wait_until_blocked
from tests.pruning import BOTTOM, RETENTION, Clock, add_rows, left, pruned, pruner_on


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(settings_for(database), 2)
    yield pool
    pool.terminate()


@pytest.fixture
def pruner(pool: asyncpg.Pool, registry: Registry) -> Pruner:
    return pruner_on(pool, registry)


async def test_a_row_that_somebody_holds_is_passed_over_and_not_waited_for(
    database: str, connection: asyncpg.Connection, pruner: Pruner
) -> None:
    rows = await add_rows(connection, 15)
    async with opened(database) as application, application.transaction():
        await application.execute(
            "UPDATE reporting_outbox SET status = 'pending', updated_at = now() WHERE id = $1", rows[4]
        )
        assert await asyncio.wait_for(pruner.round(), 5) == 14
    assert await left(connection) == [rows[4]]
    pruner.sweep_at = 0
    assert await pruner.round() == 0  # it waits again, and stays


async def test_a_row_that_came_to_wait_since_the_slice_was_read_stays(
    database: str, connection: asyncpg.Connection
) -> None:
    """The statement stops once it has its snapshot, while the row changes."""
    stopping = PRUNE.replace("pg_try_advisory_xact_lock($4)", "pg_advisory_xact_lock($4) IS NOT NULL")
    assert stopping != PRUNE
    rows = await add_rows(connection, 3)
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY)
    async with opened(database) as slow:
        arguments = (BOTTOM, RETENTION, 10, LOCK_KEY)
        pruning = asyncio.create_task(slow.fetch(stopping, *arguments))
        await wait_until_blocked(connection, slow.get_server_pid())
        await set_columns(connection, [rows[1]], status="pending")
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)
        assert [tuple(record) for record in await pruning] == [(3, rows[2], 2)]
    assert await left(connection) == [rows[1]]


async def test_an_application_that_enqueues_what_is_being_removed_gets_its_row(
    database: str, connection: asyncpg.Connection
) -> None:
    (row,) = await add_rows(connection, 1)
    source = await connection.fetchval("SELECT source_id FROM reporting_outbox WHERE id = $1", row)
    async with opened(database) as removing, opened(database) as application:
        await removing.execute("BEGIN")
        await removing.fetch(PRUNE, BOTTOM, RETENTION, 10, LOCK_KEY)
        insert = asyncio.create_task(
            application.execute(
                "INSERT INTO reporting_outbox (org_id, source_type, source_id, reason) VALUES (1, 'event', $1, 'test')"
                " ON CONFLICT (org_id, source_type, source_id, source_version, reason)"
                " DO UPDATE SET status = 'pending' WHERE reporting_outbox.status = 'completed'",
                source,
            )
        )
        await wait_until_blocked(connection, application.get_server_pid())
        await removing.execute("COMMIT")
        await insert
    (waiting,) = await connection.fetch("SELECT id, status FROM reporting_outbox")
    assert (waiting["id"] != row, waiting["status"]) == (True, "pending")


async def test_one_pruner_works_at_a_time_and_the_next_takes_over_when_its_connection_dies(
    database: str, connection: asyncpg.Connection, pruner: Pruner
) -> None:
    await add_rows(connection, 15)
    async with opened(database) as other:
        await other.execute("BEGIN")
        await other.fetch(PRUNE, BOTTOM, RETENTION, 5, LOCK_KEY)
        assert await asyncio.wait_for(pruner.round(), 5) == 0

    async def is_free() -> bool:
        return not await connection.fetch("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")

    await wait_until(is_free)
    assert await pruner.round() == 15  # what the other had not committed has come back


async def test_two_pruners_at_once_remove_each_row_once(
    connection: asyncpg.Connection, pool: asyncpg.Pool, registry: Registry
) -> None:
    await add_rows(connection, 400)
    kept = await add_rows(connection, 20, "pending")
    pruners = [pruner_on(pool, registry) for _ in range(2)]
    removed = 0
    async with asyncio.timeout(20):
        while await connection.fetchval("SELECT count(*) FROM reporting_outbox") > len(kept):
            removed += sum(await asyncio.gather(*(pruner.round() for pruner in pruners)))
    assert removed == 400
    assert await left(connection) == kept


async def test_nothing_is_held_between_two_slices(
    connection: asyncpg.Connection, pool: asyncpg.Pool, pruner: Pruner
) -> None:
    """In the rest after a slice there is neither a lock nor a transaction, nor a connection that is away."""
    await add_rows(connection, 15)
    pruner.clock = Clock(step=10)  # each slice seems to take so long: it rests for half a minute
    resting = asyncio.create_task(pruner.round())

    async def has_begun() -> bool:
        return len(await left(connection)) == 5

    await wait_until(has_begun)

    async def is_free() -> bool:
        return pool.get_size() == pool.get_idle_size()

    await wait_until(is_free)
    assert not await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND xact_start IS NOT NULL"
    )
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    pruner.stop.set()
    assert await asyncio.wait_for(resting, 1) == 10  # a stop ends the rest at once


async def test_a_fault_of_the_database_ends_a_round_and_nothing_else(
    connection: asyncpg.Connection, pruner: Pruner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    pruner.log, capture = captured_log()
    await add_rows(connection, 15)
    await connection.execute("ALTER TABLE reporting_outbox RENAME COLUMN updated_at TO elsewhere")
    working = asyncio.create_task(pruner.run())

    async def told() -> bool:
        return len(capture.entries) >= 2

    try:
        await wait_until(told)
    finally:
        await connection.execute("ALTER TABLE reporting_outbox RENAME COLUMN elsewhere TO updated_at")

    async def all_gone() -> bool:
        return await left(connection) == []

    await wait_until(all_gone)
    pruner.stop.set()
    await asyncio.wait_for(working, 5)
    said = capture.entries[0]
    assert (said["event"], said["log_level"]) == ("completed rows not pruned, trying again", "warning")
    assert said["error"].startswith("42703 ")


async def test_a_lost_connection_in_the_midst_of_a_slice_changes_nothing(
    database: str, connection: asyncpg.Connection, pruner: Pruner
) -> None:
    rows = await add_rows(connection, 5)
    async with opened(database) as keeper:
        await keeper.execute("BEGIN; LOCK TABLE reporting_outbox")
        working = asyncio.create_task(pruner.round())

        async def ended() -> bool:
            return bool(
                await keeper.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
                )
            )

        await wait_until(ended)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await working
    assert await left(connection) == rows
    assert pruned(pruner) == 0
    assert await pruner.round() == 5
