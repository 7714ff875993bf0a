"""Calls of a backfill: limit, order, scope (contract: http.md)."""

from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from projector.batch import BatchRules
from projector.projections import BUILT_IN
from tests.backfills import ALL, CONTRACT_ORDER, add_one_of_each, drain, enqueued, run, waiting
from tests.platform_rows import EPOCH, add_org, add_posting, add_session


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


async def test_the_limit_is_spent_on_the_oldest_of_all_orgs(connection: asyncpg.Connection) -> None:
    made = {}
    for org_id, hour in ((1, 4), (2, 1), (3, 3), (4, 2)):
        await add_org(connection, org_id)
        made[hour] = await add_posting(connection, org_id, created_at=EPOCH + timedelta(hours=hour))
    for hour in (1, 2, 3, 4):
        await run(connection, 1)
        assert (await waiting(connection))[-1] == ("usage_ledger", made[hour])
