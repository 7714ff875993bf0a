"""Calls of a backfill: how far they come, and where the next one goes on (contract: http.md)."""

import asyncpg
import pytest

from projector import backfill as module
from projector.batch import BatchRules
from tests.backfills import LEDGER, add_postings, assert_nothing_is_missing, drain, run, waiting
from tests.obstacles import opened
from tests.platform_rows import add_posting


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def test_calls_go_on_where_the_one_before_ended_and_look_at_nothing_twice(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 10_500)
    looked_at = []
    for _ in range(5):
        outcome = await run(connection, 2000, projections=(LEDGER,))
        assert outcome.rows == 2000
        looked_at.append(outcome.looked_at)
        await drain(connection, rules)
    assert looked_at == [2000] * 5
    assert (await run(connection, 2000, projections=(LEDGER,))).rows == 500
    await drain(connection, rules)
    assert (await run(connection, 2000, projections=(LEDGER,))).rows == 0
    assert await connection.fetchval("SELECT count(*) FROM reporting_backfill_progress") == 0
    await assert_nothing_is_missing(connection)


async def test_a_slice_that_the_limit_cuts_is_looked_at_again(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 1500)
    for _ in range(5):
        assert (await run(connection, 300, projections=(LEDGER,))).rows == 300
        await drain(connection, rules)
    assert (await run(connection, 300, projections=(LEDGER,))).rows == 0


async def test_slices_whose_rows_all_wait_are_passed_over(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 5000)
    assert (await run(connection, 4900, projections=(LEDGER,))).rows == 4900
    await connection.execute("DELETE FROM reporting_backfill_progress")
    assert (await run(connection, 1000, projections=(LEDGER,))).rows == 100
    assert (await run(connection, 1000, projections=(LEDGER,))).rows == 0


async def test_what_comes_to_be_missing_behind_a_backfill_is_found_by_its_last_call(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 12_000)
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 11_000
    await drain(connection, rules)
    first = await connection.fetchval("SELECT min(source_key) FROM fact_budget_posting")
    await connection.execute("DELETE FROM fact_budget_posting WHERE source_key = $1", first)
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 1001
    assert (await run(connection, 11_000, projections=(LEDGER,))).rows == 0


async def test_a_source_that_is_committed_late_behind_a_long_walk_is_found_by_the_calls_that_follow(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 12_000)
    async with opened(database) as late:
        transaction = late.transaction()
        await transaction.start()
        posting = await add_posting(late)
        await add_postings(connection, 12_000)
        while (await run(connection, 9000, projections=(LEDGER,))).rows == 9000:
            await drain(connection, rules)
        await drain(connection, rules)
        await transaction.commit()
    assert (await run(connection, 9000, projections=(LEDGER,))).rows == 1
    assert await waiting(connection) == [("usage_ledger", posting)]
    await drain(connection, rules)
    assert (await run(connection, 9000, projections=(LEDGER,))).rows == 0


async def test_what_is_old_is_not_looked_at_again(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_postings(connection, 5000)
    await connection.execute(
        "ALTER TABLE usage_ledger DISABLE TRIGGER ALL;"
        " UPDATE usage_ledger SET created_at = now() - interval '21 minutes'"
    )
    await add_postings(connection, 500)
    for _ in range(5):
        assert (await run(connection, 1000, projections=(LEDGER,))).rows == 1000
        await drain(connection, rules)
    assert (await run(connection, 1000, projections=(LEDGER,))).rows == 500
    await drain(connection, rules)
    last = await run(connection, 1000, projections=(LEDGER,))
    assert (last.rows, last.complete) == (0, True)
    assert last.looked_at <= 1500


async def test_a_call_whose_time_is_up_says_so_and_the_next_one_goes_on(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 8000)
    await connection.execute(
        "INSERT INTO fact_budget_posting (org_id, source_key, created_at, time_bucket_day)"
        " SELECT 1, 'usage_ledger:' || id, now(), now() FROM (SELECT id FROM usage_ledger ORDER BY id LIMIT 7000) AS l"
    )
    first = await run(connection, 1000, projections=(LEDGER,), late_after=2)
    assert (first.rows, first.complete, first.looked_at) == (0, False, 3000)
    second = await run(connection, 1000, projections=(LEDGER,))
    assert (second.rows, second.complete) == (1000, True)
    assert second.looked_at <= 6000


async def test_a_forgotten_backfill_begins_anew(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 3000)
    await run(connection, 1000, projections=(LEDGER,))
    await connection.execute("UPDATE reporting_backfill_progress SET updated_at = now() - interval '61 minutes'")
    await connection.execute("DELETE FROM reporting_outbox")
    assert (await run(connection, 3000, projections=(LEDGER,))).rows == 3000


async def test_progress_of_others_that_is_forgotten_is_removed(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 10)
    await connection.execute(
        "INSERT INTO reporting_backfill_progress VALUES ('old', '{}', now() - interval '61 minutes'),"
        " ('new', '{}', now())"
    )
    await run(connection)
    scopes = await connection.fetch("SELECT scope FROM reporting_backfill_progress")
    assert "old" not in {record["scope"] for record in scopes}
    assert "new" in {record["scope"] for record in scopes}


async def test_a_slice_is_enqueued_noted_and_recorded_together_or_not_at_all(connection: asyncpg.Connection) -> None:
    await add_postings(connection, 2500)
    told: list[int] = []

    async def fail_at_last(_: asyncpg.Connection, rows: int) -> None:
        told.append(rows)
        if len(told) == 2:
            raise ConnectionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LARGEST_SLICE", 1000)
        with pytest.raises(ConnectionError):
            await run(connection, 2500, projections=(LEDGER,), record=fail_at_last)
    assert told == [1000, 2000]
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 1000
    assert (await run(connection, 2500, projections=(LEDGER,))).rows == 1500


async def test_a_call_that_has_no_time_to_look_again_does_not_say_that_it_reached_everything(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_postings(connection, 500)
    for _ in range(2):
        await run(connection, 400, projections=(LEDGER,))
        await drain(connection, rules)
    last = await connection.fetchval("SELECT max(id::text) FROM usage_ledger")
    await connection.execute(
        "INSERT INTO reporting_backfill_progress (scope, position) SELECT scope, '{}' FROM reporting_backfill_progress"
        " ON CONFLICT (scope) DO UPDATE SET position = jsonb_build_object('after', jsonb_build_object("
        "'usage_ledger', $1::text), 'again', '{}'::jsonb)",
        last,
    )
    await connection.execute(
        "DELETE FROM fact_budget_posting WHERE source_key = (SELECT min(source_key) FROM fact_budget_posting)"
    )
    late = await run(connection, 400, projections=(LEDGER,), late_after=1)
    assert (late.rows, late.complete) == (0, False)
    assert (await run(connection, 400, projections=(LEDGER,))).rows == 1
