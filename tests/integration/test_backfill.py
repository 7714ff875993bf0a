"""Calls of a backfill: limit, order, scope, how far they come, and who else is at work (contract: http.md)."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from projector import backfill as module
from projector.backfill import BackfillBusyError, alone
from projector.batch import BatchRules
from projector.projections import BUILT_IN
from tests.backfills import (
    ALL,
    CONTRACT_ORDER,
    LEDGER,
    add_one_of_each,
    add_postings,
    assert_nothing_is_missing,
    drain,
    enqueued,
    run,
    waiting,
)
from tests.obstacles import opened, wait_until, wait_until_blocking
from tests.platform_rows import (
    EPOCH,
    add_org,
    add_posting,
    add_session,
)


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def test_the_limit_is_spent_in_the_contracts_order_oldest_first(connection: asyncpg.Connection) -> None:
    made = [await add_one_of_each(connection, created_at=EPOCH + timedelta(hours=hour)) for hour in (3, 1, 2)]
    by_age = [made[1], made[2], made[0]]
    expected = [(source_type, sources[source_type]) for source_type in CONTRACT_ORDER for sources in by_age]
    for done in range(1, 13):
        assert (await run(connection, 1)).rows == 1
        assert await waiting(connection) == expected[:done]
    assert (await run(connection, 1)).rows == 0


async def test_sources_of_the_same_moment_are_told_apart(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    sessions = {await add_session(connection, created_at=EPOCH) for _ in range(25)}
    while await enqueued(connection, 4):
        await drain(connection, rules)
    assert await connection.fetchval("SELECT count(*) FROM fact_session") == len(sessions)


async def test_a_backfill_of_one_org_leaves_all_others_alone(connection: asyncpg.Connection) -> None:
    await add_one_of_each(connection, 1)
    made = await add_one_of_each(connection, 2)
    assert await enqueued(connection, org_id=2) == dict.fromkeys(CONTRACT_ORDER, 1)
    assert await connection.fetchval("SELECT array_agg(DISTINCT org_id) FROM reporting_outbox") == [2]
    assert {source for _, source in await waiting(connection)} == set(made.values())
    assert await enqueued(connection, org_id=3) == {}
    assert await enqueued(connection) == dict.fromkeys(CONTRACT_ORDER, 1)


async def test_only_the_named_source_types_are_enqueued(connection: asyncpg.Connection) -> None:
    await add_one_of_each(connection)
    for projection in reversed(BUILT_IN):
        assert await enqueued(connection, projections=(projection,)) == {projection.source_type: 1}


async def test_a_range_is_of_created_at_its_end_excluded(connection: asyncpg.Connection) -> None:
    made = [await add_one_of_each(connection, created_at=EPOCH + timedelta(hours=hour)) for hour in range(4)]
    hours = [EPOCH + timedelta(hours=hour) for hour in range(4)]
    await run(connection, created_from=hours[1], created_to=hours[3])
    assert {source for _, source in await waiting(connection)} == {*made[1].values(), *made[2].values()}
    await run(connection, created_from=hours[3])
    assert {source for _, source in await waiting(connection)} >= set(made[3].values())
    await run(connection, created_to=hours[1])
    assert len(await waiting(connection)) == 16


async def test_all_sources_are_enqueued_once_and_then_no_more(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for _ in range(5):
        await add_one_of_each(connection)
    await run(connection)
    await drain(connection, rules)
    total = 0
    while found := await enqueued(connection, 3, mode=ALL):
        total += sum(found.values())
        await drain(connection, rules)
        assert total <= 20
    assert total == 20
    assert sum((await enqueued(connection, mode=ALL)).values()) == 20  # a new backfill


@pytest.mark.parametrize("mode", ["missing", "stale", "all"])
async def test_a_dry_run_counts_up_to_the_limit_and_changes_nothing(connection: asyncpg.Connection, mode: Any) -> None:
    for _ in range(3):
        await add_one_of_each(connection)
    for _ in range(2):
        assert await enqueued(connection, mode=mode, dry_run=True) == dict.fromkeys(CONTRACT_ORDER, 3)
        assert await enqueued(connection, 4, mode=mode, dry_run=True) == {"event": 3, "session": 1}
    for table in ("reporting_outbox", "reporting_backfill_progress"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert await enqueued(connection, mode=mode) == dict.fromkeys(CONTRACT_ORDER, 3)
    assert await enqueued(connection, mode=mode, dry_run=True) == {}


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


async def test_the_limit_is_spent_on_the_oldest_of_all_orgs(connection: asyncpg.Connection) -> None:
    made = {}
    for org_id, hour in ((1, 4), (2, 1), (3, 3), (4, 2)):
        await add_org(connection, org_id)
        made[hour] = await add_posting(connection, org_id, created_at=EPOCH + timedelta(hours=hour))
    for hour in (1, 2, 3, 4):
        await run(connection, 1)
        assert (await waiting(connection))[-1] == ("usage_ledger", made[hour])


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
