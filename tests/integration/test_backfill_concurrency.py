"""Calls of a backfill: who else is at work (contract: http.md)."""

import asyncio
import contextlib

import asyncpg
import pytest

from projector import backfill as module
from projector.backfill import BackfillBusyError, alone
from tests.backfills import LEDGER, add_postings, enqueued, run
from tests.obstacles import opened, wait_until, wait_until_blocking
from tests.platform_rows import add_org, add_posting


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def test_two_backfills_of_one_org_are_not_at_work_at_once(database: str, connection: asyncpg.Connection) -> None:
    async with opened(database) as other:
        async with alone(connection, 1):
            with pytest.raises(BackfillBusyError):
                async with alone(other, 1):
                    pass
            async with alone(other, 2), alone(connection, None):
                with pytest.raises(BackfillBusyError):
                    async with alone(other, None):
                        pass
        async with alone(other, 1):
            pass
    assert await connection.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_a_backfill_of_all_orgs_holds_the_lock_that_the_platform_knows(
    database: str, connection: asyncpg.Connection
) -> None:
    async with opened(database) as platform:
        assert await platform.fetchval("SELECT pg_try_advisory_lock(7311142587303228529)")
        with pytest.raises(BackfillBusyError):
            async with alone(connection, None):
                pass
        async with alone(connection, 1):
            pass


async def test_the_application_may_enqueue_a_source_while_a_backfill_does(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_org(connection)
    source = str(await add_posting(connection))
    async with opened(database) as application:
        transaction = application.transaction()
        await transaction.start()
        await application.execute(
            "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
            " VALUES (1, 'usage_ledger', $1, $1, 'budget_posting_projection')",
            source,
        )
        call = asyncio.create_task(enqueued(connection))
        await wait_until_blocking(application, application.get_server_pid())
        await transaction.commit()
        assert await call == {}
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 1


async def test_a_lock_that_is_taken_while_its_taker_is_cancelled_is_not_kept(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_LOCK", module.TRY_LOCK + ", pg_sleep(1)")
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"

    async def hold(taker: asyncpg.Connection) -> None:
        async with alone(taker, 1):
            pass

    async def taken() -> bool:
        return bool(await connection.fetchval(locks))

    async def gone() -> bool:
        return not await taken()

    async with opened(database) as taker:
        call = asyncio.create_task(hold(taker))
        await wait_until(taken)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await wait_until(gone, 5)


async def test_a_backfill_gives_way_to_an_application_that_enqueues_in_another_order(
    database: str, connection: asyncpg.Connection
) -> None:
    await add_postings(connection, 10_000)
    ids = [row[0] for row in await connection.fetch("SELECT id::text FROM usage_ledger ORDER BY created_at, id")]
    insert = (
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
        f" VALUES (1, 'usage_ledger', $1, $1, '{LEDGER.reason}') ON CONFLICT DO NOTHING"
    )
    async with opened(database) as application, opened(database) as filler:
        async with application.transaction():
            await application.execute(insert, ids[-1])
            call = asyncio.create_task(run(filler, 10_000, projections=(LEDGER,)))
            await asyncio.sleep(0.25)  # it writes, and has not come to the last row
            await application.execute(insert, ids[0])
        with contextlib.suppress(asyncpg.PostgresError):
            await call
