"""A retention of 0: completed rows are deleted in the transaction that settles them, and no others (promise 3)."""

from dataclasses import replace

import asyncpg
import pytest
from pydantic import SecretStr

from projector import outbox
from projector.batch import DELAY_BOUNDS, BatchRules, run_batch
from projector.daemon import worker_rules
from projector.projections import load_registry
from projector.settings import Settings
from tests.claimed import claim_ids, tids_of
from tests.obstacles import enqueue_tools, opened, statuses, tool_names
from tests.platform_rows import add_org, enqueue, outbox_row


@pytest.fixture
def rules(rules: BatchRules) -> BatchRules:
    return replace(rules, keep_completed=False)


async def rows_left(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT count(*) FROM reporting_outbox"))


async def test_completed_rows_are_deleted_and_their_facts_stay(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await enqueue_tools(connection, ["read", "search"])
    result = await run_batch(connection, rules, 10)
    assert result.completed == {"event": 2}
    assert sum(delays.rows for delays in result.delays) == 2
    assert await rows_left(connection) == 0
    assert await tool_names(connection) == ["read", "search"]


async def test_rows_that_fail_stay(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await enqueue_tools(connection, ["read"])
    malformed = await enqueue(connection, "event", "17")
    result = await run_batch(connection, rules, 10)
    assert [failed.id for failed in result.failed] == [malformed]
    assert await rows_left(connection) == 1
    row = await outbox_row(connection, malformed)
    assert (row["status"], row["attempts"]) == ("failed", 1)


async def test_a_row_that_fails_again_and_again_ends_as_a_dead_letter_that_stays(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    malformed = await enqueue(connection, "event", "17")
    for _ in range(2):
        await run_batch(connection, replace(rules, max_attempts=2), 10)
        await connection.execute(
            "UPDATE reporting_outbox SET next_attempt_at = now() WHERE next_attempt_at < 'infinity'"
        )
    row = await outbox_row(connection, malformed)
    assert (row["status"], row["attempts"], str(row["next_attempt_at"])[:4]) == ("failed", 2, "9999")


async def test_a_batch_that_is_rolled_back_deletes_nothing(database: str, connection: asyncpg.Connection) -> None:
    rows = await enqueue_tools(connection, ["read", "search"])
    async with opened(database) as worker:
        held = worker.transaction()
        await held.start()
        assert await claim_ids(worker, 10) == rows
        await outbox.complete(worker, await tids_of(worker, rows), DELAY_BOUNDS, keep=False)
        await held.rollback()
    assert await statuses(connection, rows) == ["pending", "pending"]


async def test_the_same_work_can_be_enqueued_again(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await enqueue_tools(connection, ["read"])
    record = await connection.fetchrow("SELECT source_type, source_id FROM reporting_outbox")
    assert record is not None
    await run_batch(connection, rules, 10)
    await enqueue(connection, record["source_type"], record["source_id"])
    assert (await run_batch(connection, rules, 10)).completed == {"event": 1}
    assert await tool_names(connection) == ["read"]


@pytest.mark.parametrize(("seconds", "keeps"), [(0, False), (0.001, True), (604_800, True)])
def test_the_setting_decides(seconds: float, keeps: bool) -> None:
    settings = Settings.model_construct(
        database_url=SecretStr("postgresql://x"), reporting_outbox_retention_secs=seconds
    )
    assert worker_rules(settings, load_registry()).keep_completed is keeps
