"""Hot statements on an outbox with 200,000 completed and 50,000 due rows read no more than they work on (promise 8).

Tables, statements and what their plans must keep to are those of test_plans.py. Here the outbox is many times as large:
whatever counts, sorts or scans all of it, or all that waits, reads far more than is allowed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from projector import backfill, claims, outbox
from projector.database import Timeouts
from projector.demo.embedded import database_dsn
from tests.catalog import TABLES
from tests.conftest import TEMPLATE, run_on
from tests.integration.test_plans import arguments_of
from tests.obstacles import opened
from tests.plans import Plan, explain, fill, problems
from tests.statements import STATEMENTS, Statement

SESSIONS = 1000
FILL_SCALE = (Path(__file__).parents[1] / "fill_scale.sql").read_text(encoding="utf-8")
BEGIN = Timeouts(statement=60).begin_statement()
MANY = 2000
"""What a large batch takes."""

# Not here: what counts all by order of an operator, and removals, which are rare.
LEFT_OUT = ("count_due", "count_dead", "requeue_dead", "remove_")
HOT = {name: statement for name, statement in STATEMENTS.items() if not name.startswith(LEFT_OUT)} | {
    "claim_many_fresh": Statement(claims.CLAIM_FRESH, (MANY, "-infinity", str(UUID(int=0))), MANY),
    "claim_many_of_a_backlog": Statement(
        claims.CLAIM_BACKLOG, (MANY // 2, [1, 2], ["-infinity"] * 2, [str(UUID(int=0))] * 2), MANY
    ),
    "claim_many_of_an_org": Statement(outbox.CLAIM_ORG, (MANY, 1), MANY),
    "enqueue": Statement(
        backfill.ENQUEUE,
        ("event", "scale_pending", [1] * 100, [str(20 * number) for number in range(100)], [""] * 100),
        300,
    ),
}
MOST_PAGES_FOR_A_ROW = 40
MOST_PAGES = 500
"""Beside those for rows; the outbox alone has several thousand."""

STATISTICS = ("fresh", "none", "of an empty outbox")


async def _fill(dsn: str, statistics: str) -> None:
    async with opened(dsn) as connection:
        if statistics != "fresh":
            for table in (*TABLES, "sessions", "events", "llm_generations", "usage_ledger"):
                await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        await fill(connection, SESSIONS)
        if statistics == "of an empty outbox":
            await _look_empty(connection)
        await connection.execute(FILL_SCALE)
        if statistics == "fresh":
            await connection.execute("ANALYZE")


async def _look_empty(connection: asyncpg.Connection) -> None:
    """Leaves statistics that say: the outbox has pages, and not a row."""
    await connection.execute("CREATE TABLE kept AS TABLE reporting_outbox; DELETE FROM reporting_outbox")
    await connection.execute("VACUUM (TRUNCATE off, ANALYZE) reporting_outbox")
    await connection.execute("INSERT INTO reporting_outbox TABLE kept; DROP TABLE kept")


@pytest.fixture(scope="module", params=STATISTICS)
def large(template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a database with a large outbox, and with statistics of one kind."""

    async def build() -> None:
        await run_on(template, f"CREATE DATABASE large TEMPLATE {TEMPLATE}")
        await _fill(database_dsn(template, "large"), request.param)

    asyncio.run(build())
    yield database_dsn(template, "large")
    asyncio.run(run_on(template, "DROP DATABASE large WITH (FORCE)"))


@pytest.fixture
async def batch(large: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a batch's transaction on that database; rolled back."""
    async with opened(large) as connection:
        await connection.execute(BEGIN)
        yield connection
        await connection.execute("ROLLBACK")


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_reads_no_more_than_it_works_on(batch: asyncpg.Connection, name: str) -> None:
    statement = HOT[name]
    # Operators' statements are planned for their parameters; after five runs all others may have generic plans.
    modes = ("force_custom_plan",) if statement.operator else ("force_custom_plan", "force_generic_plan")
    arguments = await arguments_of(batch, statement)
    for mode in modes:
        await batch.execute(f"SAVEPOINT planned; {statement.before}; SET LOCAL plan_cache_mode = {mode}")
        await batch.execute(f"PREPARE it AS {statement.sql}")
        plan = await explain(batch, "it", arguments)
        assert problems(plan, most_rows=statement.most_rows, whole=statement.whole) == [], mode
        assert _pages(plan) <= MOST_PAGES_FOR_A_ROW * statement.most_rows + MOST_PAGES, mode
        await batch.execute("ROLLBACK TO SAVEPOINT planned; DEALLOCATE it")


def _pages(plan: Plan) -> int:
    """Pages that the statement touched, each time it did."""
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
