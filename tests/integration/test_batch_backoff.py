"""Failed rows wait longer each time and end as dead letters (contract: outbox.md, backoff)."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from tests.obstacles import enqueue_tools, refuse_by_check, set_columns, statuses
from tests.platform_rows import outbox_row

HUGE = 2**31 - 1


async def fail_once(
    connection: asyncpg.Connection, rules: BatchRules, attempts: int, rows: int = 1
) -> list[asyncpg.Record]:
    """Rows that have failed so often already fail once more; gives them, after the good rows beside them are seen."""
    bad = await enqueue_tools(connection, ["bad"] * rows)
    good = await enqueue_tools(connection, ["good"] * 2)
    await refuse_by_check(connection, "fact_tool_call", "tool_name = 'bad'")
    await set_columns(connection, bad, attempts=attempts, status="failed" if attempts else "pending")
    result = await run_batch(connection, rules, 1000)
    assert await statuses(connection, [*good, *bad]) == ["completed"] * 2 + ["failed"] * rows
    assert {outcome.id for outcome in result.failed} == set(bad)
    return [await outbox_row(connection, row) for row in bad]


def waits(rows: Iterable[asyncpg.Record]) -> list[float]:
    """Seconds from the failure to the next attempt."""
    return [(row["next_attempt_at"] - row["updated_at"]) / timedelta(seconds=1) for row in rows]


async def is_dead(connection: asyncpg.Connection, row: UUID) -> bool:
    return bool(
        await connection.fetchval("SELECT next_attempt_at = 'infinity' FROM reporting_outbox WHERE id = $1", row)
    )


@pytest.mark.parametrize("attempts", [0, 1, 2, 5, 6, 30])
async def test_the_wait_doubles_with_each_attempt_up_to_an_hour(
    connection: asyncpg.Connection, rules: BatchRules, attempts: int
) -> None:
    rows = await fail_once(connection, replace(rules, max_attempts=100), attempts, rows=20)
    middle = min(30 * 2.0 ** (attempts + 1), 3600)
    assert {row["attempts"] for row in rows} == {attempts + 1}
    for wait in waits(rows):
        assert 0.9 * middle - 0.001 <= wait <= min(1.1 * middle, 3600) + 0.001


async def test_rows_that_fail_together_are_not_due_together_again(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    seconds = waits(await fail_once(connection, rules, attempts=2, rows=60))
    assert len(set(seconds)) > 50
    assert max(seconds) - min(seconds) > 240 * 0.1  # of a spread of 20 %


async def test_the_last_attempt_makes_a_row_a_dead_letter(connection: asyncpg.Connection, rules: BatchRules) -> None:
    (row,) = await fail_once(connection, rules, attempts=rules.max_attempts - 1)
    assert row["attempts"] == rules.max_attempts
    assert await is_dead(connection, row["id"])


async def test_the_last_attempt_but_one_does_not(connection: asyncpg.Connection, rules: BatchRules) -> None:
    (row,) = await fail_once(connection, rules, attempts=rules.max_attempts - 2)
    assert not await is_dead(connection, row["id"])


async def test_a_batch_tells_which_rows_died(connection: asyncpg.Connection, rules: BatchRules) -> None:
    rows = await enqueue_tools(connection, ["bad"] * 3)
    await refuse_by_check(connection, "fact_tool_call", "tool_name = 'bad'")
    await set_columns(connection, rows[:1], attempts=rules.max_attempts - 1)
    result = await run_batch(connection, rules, 10)
    assert result.dead_rows == 1
    assert {outcome.id: (outcome.attempts, outcome.dead) for outcome in result.failed} == {
        rows[0]: (rules.max_attempts, True), rows[1]: (1, False), rows[2]: (1, False),
    }  # fmt: skip


async def test_a_dead_letter_is_not_claimed_again(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await fail_once(connection, replace(rules, max_attempts=1), attempts=0)
    assert (await run_batch(connection, rules, 10)).claimed == 0


@pytest.mark.parametrize("attempts", [HUGE, HUGE - 1, 10**6])
@pytest.mark.parametrize("max_attempts", [10, HUGE])
async def test_a_huge_number_of_attempts_does_not_break_the_batch(
    connection: asyncpg.Connection, rules: BatchRules, attempts: int, max_attempts: int
) -> None:
    (row,) = await fail_once(connection, replace(rules, max_attempts=max_attempts), attempts)
    assert row["attempts"] == min(attempts + 1, HUGE)
    assert await is_dead(connection, row["id"]) == (row["attempts"] >= max_attempts)
