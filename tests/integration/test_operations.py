"""What the service's operations do when their time is up, and what their records tell then."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest
import structlog

from backfill_api import operations as module
from backfill_api.operations import Operations, Origin
from backfill_api.problems import ApiError, Code
from projector.batch import BatchRules
from projector.registry import Registry
from schemas.operations import Action, RequeueRequest
from schemas.reports import ReportingBackfillRequest
from tests.backfills import add_postings
from tests.claimed import fail_ids
from tests.platform_rows import add_generation, add_org, enqueue

ORIGIN = Origin("ops", "req-1")


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def operations(database: str, registry: Registry, rules: BatchRules) -> AsyncIterator[Operations]:
    """Operations whose clock goes on by a second whenever it is asked."""
    seconds = itertools.count()
    async with asyncpg.create_pool(database, min_size=1, max_size=2) as pool:
        yield Operations(
            pool=pool, registry=registry, rules=rules, seconds=1e9, on_enqueued=lambda *_: None,
            clock=lambda: float(next(seconds)), log=structlog.get_logger(),
        )  # fmt: skip


async def last_action(operations: Operations) -> Action:
    return (await operations.actions(1, 1, None)).actions[0]


async def enqueue_generations(connection: asyncpg.Connection, rows: int) -> list[UUID]:
    await add_org(connection)
    return [await enqueue(connection, "llm_generation", await add_generation(connection)) for _ in range(rows)]


async def test_a_run_whose_time_is_up_answers_in_part(
    operations: Operations, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_BATCH", 3)
    await enqueue_generations(connection, 10)
    result = await replace(operations, seconds=2.5).run(ORIGIN, 1, 10)
    assert (result.claimed, result.completed) == (6, 6)
    action = await last_action(operations)
    assert (action.outcome, action.rows) == ("partial", 6)
    assert (await operations.run(ORIGIN, 1, 10)).claimed == 4
    assert (await last_action(operations)).outcome == "done"


async def test_a_run_puts_off_what_is_in_the_way_and_goes_on(
    operations: Operations, connection: asyncpg.Connection
) -> None:
    generation, other = await enqueue_generations(connection, 2)
    await operations.run(ORIGIN, 1, 10)
    await connection.execute("UPDATE reporting_outbox SET status = 'pending', next_attempt_at = now()")
    async with connection.transaction():
        await connection.execute(
            "SELECT FROM fact_llm_generation WHERE source_key = (SELECT 'llm_generation:' || source_id"
            " FROM reporting_outbox WHERE id = $1) FOR UPDATE",
            generation,
        )
        result = await operations.run(ORIGIN, 1, 10)
    assert (result.claimed, result.completed, result.failed) == (2, 1, 0)
    statuses = await connection.fetch("SELECT id FROM reporting_outbox WHERE status = 'completed'")
    assert [record["id"] for record in statuses] == [other]


async def test_a_requeue_whose_time_is_up_answers_in_part(
    operations: Operations, connection: asyncpg.Connection
) -> None:
    rows = await enqueue_generations(connection, 3)
    await fail_ids(connection, rows, "22003", 1)
    request = RequeueRequest(all_dead=True)
    result = await replace(operations, seconds=0.5).requeue(ORIGIN, 1, request)
    assert (result.requeued, result.more) == (0, True)
    assert (await last_action(operations)).outcome == "partial"
    limited = await operations.requeue(ORIGIN, 1, RequeueRequest(all_dead=True, limit=2))
    assert (limited.requeued, limited.more) == (2, True)
    assert (await last_action(operations)).outcome == "done"


async def test_dry_runs_are_recorded_with_no_rows(operations: Operations, connection: asyncpg.Connection) -> None:
    rows = await enqueue_generations(connection, 2)
    await fail_ids(connection, rows, "22003", 1)
    await add_postings(connection, 5)
    assert (await operations.requeue(ORIGIN, 1, RequeueRequest(all_dead=True, dry_run=True))).requeued == 2
    assert (await last_action(operations)).rows == 0
    assert (await operations.backfill(ORIGIN, 1, ReportingBackfillRequest(dry_run=True))).usage_ledger == 5
    assert (await last_action(operations)).rows == 0


async def test_a_backfill_whose_time_is_up_answers_with_what_it_has_or_says_that_it_is_not_complete(
    operations: Operations, connection: asyncpg.Connection
) -> None:
    await add_postings(connection, 3000)
    hurried = replace(operations, seconds=4.5)  # time for a slice of each source type, and one more
    result = await hurried.backfill(ORIGIN, 1, ReportingBackfillRequest(limit=2500))
    assert 0 < result.usage_ledger <= 2500
    for dry_run, advice in ((False, "goes on from there"), (True, "a smaller limit")):
        request = ReportingBackfillRequest(dry_run=dry_run)
        with pytest.raises(ApiError) as caught:
            await replace(operations, seconds=0.5).backfill(ORIGIN, 1, request)
        assert caught.value.code is Code.INCOMPLETE
        assert advice in str(caught.value.detail)
        assert (await last_action(operations)).outcome == "partial"
