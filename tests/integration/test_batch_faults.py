"""Faults of the moment use up nobody's attempt, and do not stop the others when they last (design: promises 3, 9)."""

import asyncio
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.database import Timeouts
from projector.errors import ErrorKind, classify, is_database_fault
from projector.worker import isolating
from tests.integration.test_batch_rollback import (
    assert_taken_at_once,
    enqueue_mixed,
    start_at_gate,
)
from tests.obstacles import (
    enqueue_tools,
    everything,
    gate,
    open_gate,
    opened,
    refuse_by_trigger,
    set_columns,
    statuses,
    tool_names,
    wait_until_blocked,
)
from tests.platform_rows import outbox_row


async def assert_given_up(
    connection: asyncpg.Connection, worker: asyncpg.Connection, rules: BatchRules, error: type[Exception]
) -> None:
    """A batch is given up by a fault of the moment: raised, nothing changed, no attempt used."""
    before = await everything(connection)
    with pytest.raises(error) as caught:
        await run_batch(worker, rules, 100)
    assert classify(caught.value) in {ErrorKind.TRANSIENT, ErrorKind.CONTENDED}
    assert is_database_fault(caught.value)
    assert not worker.is_in_transaction()
    assert await everything(connection) == before


async def test_a_lock_timeout_uses_up_no_attempt(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_mixed(connection)
    impatient = replace(rules, timeouts=Timeouts(statement=30, lock=0.02))
    async with gate(database, "fact_llm_generation"), opened(database) as worker:
        await assert_given_up(connection, worker, impatient, asyncpg.LockNotAvailableError)
    await assert_taken_at_once(database, rules, rows)


async def test_a_statement_timeout_of_many_rows_uses_up_no_attempt(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_mixed(connection)
    impatient = replace(rules, timeouts=Timeouts(statement=0.1))
    async with gate(database, "fact_tool_call"), opened(database) as worker:
        await assert_given_up(connection, worker, impatient, asyncpg.QueryCanceledError)
    await assert_taken_at_once(database, rules, rows)


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "53100", "53200", "57P01", "25006", "58030", "08006"])
async def test_a_fault_of_the_moment_uses_up_no_attempt(
    database: str, connection: asyncpg.Connection, rules: BatchRules, state: str
) -> None:
    rows = await enqueue_mixed(connection)
    raising = f"RAISE EXCEPTION 'for now' USING ERRCODE = '{state}'"
    await refuse_by_trigger(connection, "fact_llm_generation", "true", raising=raising)
    async with opened(database) as worker:
        await assert_given_up(connection, worker, rules, asyncpg.PostgresError)
    await connection.execute("DROP FUNCTION refuse CASCADE")
    await assert_taken_at_once(database, rules, rows)


async def test_a_deadlock_uses_up_no_attempt(database: str, connection: asyncpg.Connection, rules: BatchRules) -> None:
    rows = await enqueue_tools(connection, ["first", "second"])
    events = [row["id"] for row in await connection.fetch("SELECT id FROM events ORDER BY id")]
    insert = (
        "INSERT INTO fact_tool_call (org_id, source_key, created_at, time_bucket_day)"
        " VALUES (1, 'event:' || $1::uuid, now(), now())"
    )
    async with (
        gate(database, "fact_tool_call", condition="NEW.tool_name = 'second'") as keeper,
        opened(database, deadlock_timeout="10ms") as victim,
        opened(database, deadlock_timeout="1min") as other,
    ):
        ending = other.transaction()
        await ending.start()
        await other.execute(insert, events[1])
        batch = await start_at_gate(keeper, victim, rules)  # holds the first fact, is about to insert the second
        crossing = asyncio.create_task(other.execute(insert, events[0]))
        await wait_until_blocked(keeper, other.get_server_pid())
        before = await everything(connection)
        await open_gate(keeper)
        with pytest.raises(asyncpg.DeadlockDetectedError) as caught:
            await batch
        await crossing
        await ending.rollback()
        assert is_database_fault(caught.value)
        assert await everything(connection) == before
        assert (await run_batch(victim, rules, 10)).completed == {"event": 2}
    assert await statuses(connection, rows) == ["completed"] * 2


async def assert_only_the_first_is_put_off(connection: asyncpg.Connection, rows: list[UUID]) -> None:
    """The first row waits some seconds, as it was but for that; the others are completed."""
    assert await statuses(connection, rows) == ["failed", "completed", "completed", "completed"]
    assert await tool_names(connection) == ["good"] * 3
    row = await outbox_row(connection, rows[0])
    assert row["attempts"] == 2
    assert 1 <= (row["next_attempt_at"] - row["updated_at"]).total_seconds() <= 60


async def enqueue_one_with_a_problem(connection: asyncpg.Connection) -> list[UUID]:
    """Four rows; the first has failed before."""
    rows = await enqueue_tools(connection, ["bad", "good", "good", "good"])
    await set_columns(connection, rows[:1], status="failed", attempts=2)
    return rows


async def test_a_source_that_takes_too_long_is_put_off_when_batches_keep_being_given_up(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_one_with_a_problem(connection)
    impatient = isolating(replace(rules, timeouts=Timeouts(statement=0.1)))
    async with gate(database, "fact_tool_call", condition="NEW.tool_name = 'bad'"), opened(database) as worker:
        result = await run_batch(worker, impatient, 10)
    assert (result.postponed, result.completed) == ({"event": 1}, {"event": 3})
    await assert_only_the_first_is_put_off(connection, rows)


async def test_a_source_whose_fact_somebody_holds_is_put_off_when_batches_keep_being_given_up(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = await enqueue_one_with_a_problem(connection)
    key = await connection.fetchval("SELECT 'event:' || source_id FROM reporting_outbox WHERE id = $1", rows[0])
    async with opened(database) as holder, holder.transaction(), opened(database) as worker:
        await holder.execute(
            "INSERT INTO fact_tool_call (org_id, source_key, created_at, time_bucket_day) VALUES (1, $1, now(), now())",
            key,
        )
        rules = isolating(rules)
        result = await run_batch(worker, replace(rules, timeouts=replace(rules.timeouts, lock=0.05)), 10)
        await holder.execute("DELETE FROM fact_tool_call WHERE source_key = $1", key)
    assert (result.postponed, result.completed) == ({"event": 1}, {"event": 3})
    await assert_only_the_first_is_put_off(connection, rows)


@pytest.mark.parametrize("state", ["40001", "55P03", "57014", "XX000", "XX001"])
async def test_a_source_with_something_in_its_way_is_put_off_when_batches_keep_being_given_up(
    connection: asyncpg.Connection, rules: BatchRules, state: str
) -> None:
    rows = await enqueue_one_with_a_problem(connection)
    raising = f"RAISE EXCEPTION 'for long' USING ERRCODE = '{state}'"
    await refuse_by_trigger(connection, "fact_tool_call", "NEW.tool_name = 'bad'", raising=raising)
    result = await run_batch(connection, isolating(rules), 10)
    assert (result.postponed, result.completed) == ({"event": 1}, {"event": 3})
    await assert_only_the_first_is_put_off(connection, rows)
