"""Every statement of the engine costs what it works on, not what the tables hold (design: promise 8)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from projector.database import Timeouts
from projector.demo.embedded import database_dsn
from tests.catalog import TABLES
from tests.conftest import TEMPLATE, run_on
from tests.obstacles import opened
from tests.plans import call, explain, fill, problems
from tests.statements import ROWS, SOURCES, STATEMENTS, Statement, flaws

SESSIONS = 3000
BEGIN = Timeouts(statement=60).begin_statement()

SAMPLES = {
    "event": "SELECT org_id, e.id FROM events AS e JOIN sessions AS s ON s.id = e.session_id ORDER BY md5(e.id::text)",
    "session": "SELECT org_id, id FROM sessions ORDER BY md5(id::text)",
    "llm_generation": "SELECT org_id, id FROM llm_generations ORDER BY md5(id::text)",
    "usage_ledger": "SELECT org_id, id FROM usage_ledger ORDER BY md5(id::text)",
}


async def arguments_of(connection: asyncpg.Connection, statement: Statement) -> list[Any]:
    """The statement's arguments, with a sample of the sources or outbox rows where it takes these."""
    given: list[Any] = []
    if statement.sources:
        sample = await connection.fetch(f"{SAMPLES[statement.sources]} LIMIT {SOURCES}")
        given += [[record["org_id"] for record in sample], [record["id"] for record in sample]]
    for wanted, column in ((statement.ids, "id"), (statement.rows, "ctid")):
        if wanted:
            sample = await connection.fetch(
                f"SELECT {column} AS given FROM reporting_outbox ORDER BY md5(id::text) LIMIT {ROWS}"
            )
            given.append([record["given"] for record in sample])
    return [*given, *statement.arguments]


@pytest.fixture(scope="module")
def filled(template: str) -> Iterator[str]:
    """The DSN of a database with rows, analyzed."""

    async def build() -> None:
        await run_on(template, f"CREATE DATABASE filled TEMPLATE {TEMPLATE}")
        async with opened(database_dsn(template, "filled")) as connection:
            await fill(connection, SESSIONS)
            await connection.execute("ANALYZE")

    asyncio.run(build())
    yield database_dsn(template, "filled")
    asyncio.run(run_on(template, "DROP DATABASE filled WITH (FORCE)"))


@pytest.fixture
async def batch(filled: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a batch's transaction on that database; rolled back."""
    async with opened(filled) as connection:
        await connection.execute(BEGIN)
        yield connection
        await connection.execute("ROLLBACK")


MODES = [
    (name, mode)
    for name, statement in STATEMENTS.items()
    for mode in ("force_custom_plan", "force_generic_plan")
    if not (statement.operator and mode == "force_generic_plan")
]


@pytest.mark.parametrize(("name", "mode"), MODES)
async def test_a_statement_costs_what_it_works_on(batch: asyncpg.Connection, name: str, mode: str) -> None:
    statement = STATEMENTS[name]
    await batch.execute(f"{statement.before}; SET LOCAL plan_cache_mode = {mode}; PREPARE it AS {statement.sql}")
    plan = await explain(batch, "it", await arguments_of(batch, statement))
    assert flaws(statement, plan) == []


UNANALYZED = {
    "made anew, without statistics": "force_custom_plan",
    "made again, after one of empty tables": "force_generic_plan",
}
# What runs all the time. Removals are rare, and may well read a table whole as long as it seems to be tiny.
DAEMONS = {
    name: statement
    for name, statement in STATEMENTS.items()
    if not statement.operator and not name.startswith("remove")
}


@pytest.fixture(scope="module")
def found_unanalyzed(template: str) -> dict[str, dict[str, list[str]]]:
    """What is wrong with the plans of a connection that saw the tables empty, after they were filled, by mode."""

    async def look(dsn: str, mode: str) -> dict[str, list[str]]:
        async with opened(dsn) as writer, opened(dsn, plan_cache_mode=mode) as worker:
            for table in (*TABLES, "sessions", "events", "llm_generations", "usage_ledger", "agents", "harnesses"):
                await writer.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
            await worker.execute(BEGIN)
            for name, statement in DAEMONS.items():
                await worker.execute(f"PREPARE {name} AS {statement.sql}")
                await worker.execute(call(name, await arguments_of(worker, statement)))
            await worker.execute("ROLLBACK")
            await fill(writer, SESSIONS // 3)
            await worker.execute("DISCARD PLANS")  # as workers do as the rows that they have projected grow
            found = {}
            for name, statement in DAEMONS.items():
                await worker.execute(BEGIN)
                found[name] = flaws(statement, await explain(worker, name, await arguments_of(worker, statement)))
                await worker.execute("ROLLBACK")
            return found

    async def look_in_each_mode() -> dict[str, dict[str, list[str]]]:
        found = {}
        for mode in UNANALYZED.values():
            await run_on(template, f"CREATE DATABASE unanalyzed TEMPLATE {TEMPLATE}")
            found[mode] = await look(database_dsn(template, "unanalyzed"), mode)
            await run_on(template, "DROP DATABASE unanalyzed WITH (FORCE)")
        return found

    return asyncio.run(look_in_each_mode())


@pytest.mark.parametrize("mode", UNANALYZED.values(), ids=list(UNANALYZED))
@pytest.mark.parametrize("name", DAEMONS)
def test_a_plan_is_right_before_the_first_statistics_come(
    found_unanalyzed: dict[str, dict[str, list[str]]], name: str, mode: str
) -> None:
    assert found_unanalyzed[mode][name] == []


@pytest.fixture(scope="module")
def emptied(template: str) -> Iterator[str]:
    """The DSN of a database whose outbox was empty, but had pages, when the server last looked at it."""

    async def build() -> None:
        await run_on(template, f"CREATE DATABASE emptied TEMPLATE {TEMPLATE}")
        async with opened(database_dsn(template, "emptied")) as connection:
            await fill(connection, 1000)
            await connection.execute("ALTER TABLE reporting_outbox SET (autovacuum_enabled = off)")
            await connection.execute("CREATE TABLE kept AS TABLE reporting_outbox; DELETE FROM reporting_outbox")
            await connection.execute("VACUUM (TRUNCATE off) reporting_outbox")
            await connection.execute("ANALYZE")
            await connection.execute("INSERT INTO reporting_outbox TABLE kept; DROP TABLE kept")

    asyncio.run(build())
    yield database_dsn(template, "emptied")
    asyncio.run(run_on(template, "DROP DATABASE emptied WITH (FORCE)"))


@pytest.fixture
async def outdated(emptied: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection inside a batch's transaction on that database; rolled back."""
    async with opened(emptied) as connection:
        await connection.execute(BEGIN)
        yield connection
        await connection.execute("ROLLBACK")


OF_THE_OUTBOX = (
    "claim", "complete", "fail", "postpone", "prune", "release", "requeue", "count_", "latest_failed", "look_",
    "backlog", "sampled",
)  # fmt: skip


@pytest.mark.parametrize(("name", "mode"), [pair for pair in MODES if pair[0].startswith(OF_THE_OUTBOX)])
async def test_a_plan_is_right_while_statistics_say_that_the_outbox_is_empty(
    outdated: asyncpg.Connection, name: str, mode: str
) -> None:
    statement = STATEMENTS[name]
    await outdated.execute(f"SET LOCAL plan_cache_mode = {mode}; PREPARE it AS {statement.sql}")
    plan = await explain(outdated, "it", await arguments_of(outdated, statement))
    assert problems(plan, most_rows=statement.most_rows, whole=statement.whole) == []
