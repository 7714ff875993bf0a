"""A projection that does not fit the database puts its rows off, without an attempt, and stops no other type."""

from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchResult, BatchRules, run_batch
from projector.registry import Registry
from tests.obstacles import enqueue_tools, heard, recorded, set_columns, statuses
from tests.platform_rows import add_generation, add_posting, enqueue, outbox_row


async def enqueue_mixed(connection: asyncpg.Connection) -> tuple[list[UUID], list[UUID]]:
    """Rows of generations, one of them failed before, and of other types."""
    others = await enqueue_tools(connection, ["search"])
    generations = [
        await enqueue(connection, "llm_generation", await add_generation(connection, model="large")) for _ in range(4)
    ]
    await set_columns(connection, generations[:1], attempts=9, status="failed")
    others.append(await enqueue(connection, "usage_ledger", await add_posting(connection)))
    return generations, others


async def assert_put_off(
    connection: asyncpg.Connection, generations: list[UUID], others: list[UUID], result: BatchResult
) -> str:
    """The generations wait some seconds, each as it was but for that; gives what is told of it."""
    assert await statuses(connection, others) == ["completed"] * 2
    assert await statuses(connection, generations) == ["failed", "pending", "pending", "pending"]
    assert (result.postponed, result.failed) == ({"llm_generation": 4}, [])
    errors = set()
    for number, row in enumerate(generations):
        record = await outbox_row(connection, row)
        assert record["attempts"] == (0 if number else 9)
        wait = (record["next_attempt_at"] - record["updated_at"]).total_seconds()
        assert 1 <= wait <= 60
        errors.add(str(record["last_error"]))
    (error,) = errors
    assert "large" not in error
    return error


def broken(rules: BatchRules) -> BatchRules:
    """The rules with one projection that names a column which is not there."""
    projections = [
        replace(projection, project=projection.project.replace("g.finish_reason::text", "g.no_such_column::text"))
        if projection.name == "llm_generation"
        else projection
        for projection in rules.registry
    ]
    return replace(rules, registry=Registry(projections))


async def test_a_projection_that_names_a_missing_column_puts_its_rows_off(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    generations, others = await enqueue_mixed(connection)
    result = await run_batch(connection, broken(rules), 100)
    error = await assert_put_off(connection, generations, others, result)
    assert error.startswith("42703 UndefinedColumnError")


async def test_a_broken_projection_costs_few_statements(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await enqueue_tools(connection, [])
    for _ in range(64):
        await enqueue(connection, "llm_generation", await add_generation(connection))
    with recorded(connection) as statements:
        await run_batch(connection, broken(rules), 100)
        await heard()
    assert len(statements) <= 17  # some of them the driver's, which asks once what a type is


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("ALTER TABLE llm_generations RENAME COLUMN provider TO vendor", "42703"),
        ("ALTER TABLE fact_llm_generation RENAME COLUMN provider TO vendor", "42703"),
        ("DROP TABLE fact_llm_generation", "42P01"),
        ("ALTER TABLE fact_llm_generation DROP CONSTRAINT fact_llm_generation_pkey", "42P10"),
        ("ALTER TABLE fact_llm_generation ALTER COLUMN provider TYPE integer USING 1", "42804"),
    ],
)
async def test_a_schema_that_does_not_fit_puts_the_rows_off(
    connection: asyncpg.Connection, rules: BatchRules, change: str, state: str
) -> None:
    generations, others = await enqueue_mixed(connection)
    await connection.execute(change)
    result = await run_batch(connection, rules, 100)
    assert (await assert_put_off(connection, generations, others, result)).startswith(state)


async def test_a_missing_grant_puts_the_rows_off(connection: asyncpg.Connection, rules: BatchRules) -> None:
    generations, others = await enqueue_mixed(connection)
    role = f"projector_{uuid4().hex}"
    await connection.execute(f"""
        CREATE ROLE {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
        REVOKE INSERT ON fact_llm_generation FROM {role};
        SET ROLE {role};
    """)
    try:
        result = await run_batch(connection, rules, 100)
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    assert (await assert_put_off(connection, generations, others, result)).startswith("42501")


async def test_once_repaired_the_rows_are_projected(connection: asyncpg.Connection, rules: BatchRules) -> None:
    generations, _ = await enqueue_mixed(connection)
    await run_batch(connection, broken(rules), 100)
    assert (await run_batch(connection, rules, 100)).claimed == 0
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now() WHERE status <> 'completed'")
    assert (await run_batch(connection, rules, 100)).completed == {"llm_generation": 4}
    assert (await outbox_row(connection, generations[1]))["last_error"] is None


@pytest.mark.parametrize("table", ["llm_generations", "fact_llm_generation", "reporting_outbox"])
async def test_a_schema_change_between_two_batches_costs_no_attempt(
    connection: asyncpg.Connection, rules: BatchRules, table: str
) -> None:
    generations, _ = await enqueue_mixed(connection)
    for number in range(8):  # until plans are cached
        await connection.execute("UPDATE reporting_outbox SET status = 'pending', next_attempt_at = now()")
        assert (await run_batch(connection, rules, 100)).completed_rows == 6
        await connection.execute(f"ALTER TABLE {table} ADD COLUMN extra_{number} integer")
    await connection.execute(f"ALTER TABLE {table} ALTER COLUMN extra_0 TYPE bigint")
    await connection.execute("UPDATE reporting_outbox SET status = 'pending', next_attempt_at = now()")
    for _ in range(2):
        try:
            await run_batch(connection, rules, 100)
        except asyncpg.PostgresError:
            continue
    assert await statuses(connection, generations) == ["completed"] * 4
