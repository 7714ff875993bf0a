"""`migrate` on a database that has the outbox and the facts already: all stays as it is, only what lacks is added."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import structlog

import projector.migrate
from projector.batch import BatchRules, run_batch
from projector.migrate import load_migrations, migrate
from projector.outbox import release_expired
from tests.catalog import LEGACY, SOURCES, TABLES, Catalog, duplicates, of_tables, read_catalog, read_rows
from tests.obstacles import opened
from tests.platform_rows import add_event, enqueue

MIGRATIONS = load_migrations()
ALL = [migration.version for migration in MIGRATIONS]
INDEXES = next(migration.version for migration in MIGRATIONS if migration.name == "indexes")
SESSION = "00000000-0000-7000-8000-000000000001"


@pytest.fixture
async def legacy(empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database whose tables an older program made."""
    async with opened(empty_database) as connection:
        await connection.execute(SOURCES)
        await connection.execute(LEGACY)
        yield connection


async def run(connection: asyncpg.Connection) -> list[int]:
    return [migration.version for migration in await migrate(connection, structlog.get_logger())]


def assert_unchanged(before: Catalog, after: Catalog) -> None:
    """Columns, constraints and triggers of the tables are the same, and no index of theirs is gone."""
    for name in ("columns", "constraints", "triggers"):
        assert of_tables(after, name) == of_tables(before, name), name
    assert of_tables(before, "indexes") <= of_tables(after, "indexes")


async def test_existing_tables_stay_as_they_are(legacy: asyncpg.Connection) -> None:
    before, rows = await read_catalog(legacy), await read_rows(legacy)
    assert await run(legacy) == ALL
    after = await read_catalog(legacy)
    assert_unchanged(before, after)
    assert await read_rows(legacy) == rows
    assert await run(legacy) == []
    assert await read_catalog(legacy) == after


async def test_indexes_that_are_there_under_other_names_are_not_built_again(legacy: asyncpg.Connection) -> None:
    before = await read_catalog(legacy)
    await run(legacy)
    after = await read_catalog(legacy)
    assert duplicates(after) == []
    built = {entry[1] for entry in of_tables(after, "indexes") - of_tables(before, "indexes")}
    assert {
        "reporting_outbox_due",
        "reporting_outbox_due_by_org",
        "reporting_outbox_failed",
        "reporting_outbox_leased",
    } <= built
    assert "fact_turn_day" in built
    assert not built & {
        "fact_llm_generation_created", "fact_llm_generation_model", "fact_tool_call_created", "fact_tool_call_tool",
        "fact_turn_created", "fact_session_day", "fact_budget_posting_budget", "fact_capability_usage_capability",
    }  # fmt: skip
    assert {entry[3] for entry in after["indexes"]} == {"true"}


async def test_the_new_program_projects_into_the_old_tables(legacy: asyncpg.Connection, rules: BatchRules) -> None:
    await run(legacy)
    assert await release_expired(legacy) == 1
    result = await run_batch(legacy, rules, 10)
    assert (result.completed, result.failed) == ({"event": 1, "session": 1, "usage_ledger": 1}, [])
    tools = await legacy.fetch("SELECT tool_name, turn_id FROM fact_tool_call")
    assert [record["tool_name"] for record in tools] == ["search"]  # the older program's fact is replaced
    usages = await legacy.fetch("SELECT source_key FROM fact_capability_usage")
    keys = {record["source_key"].removeprefix(f"session:{SESSION}:") for record in usages}
    assert keys == {"event:00000000-0000-7000-8000-000000000002:invoked", "configured:session:web"}
    turn = await add_event(legacy, SESSION, "turn.completed", {"turn_id": "t"})  # type: ignore[arg-type]
    rows = [await enqueue(legacy, "event", turn), await enqueue(legacy, "event", "no uuid")]
    result = await run_batch(legacy, rules, 10)
    assert (result.completed, [outcome.id for outcome in result.failed]) == ({"event": 1}, rows[1:])


async def test_tables_that_are_not_there_are_made_beside_those_that_are(
    legacy: asyncpg.Connection, rules: BatchRules
) -> None:
    await legacy.execute("DROP TABLE fact_session, fact_budget_posting")
    kept = tuple(table for table in TABLES if table not in {"fact_session", "fact_budget_posting"})
    before, rows = await read_catalog(legacy), await read_rows(legacy, kept)
    assert await run(legacy) == ALL
    after = await read_catalog(legacy)
    assert of_tables(after, "columns", kept) == of_tables(before, "columns", kept)
    assert await read_rows(legacy, kept) == rows
    assert (await run_batch(legacy, rules, 10)).facts["sessions"] == 1


async def test_an_interrupted_migration_of_old_tables_is_finished(
    legacy: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(projector.migrate, "load_migrations", lambda: MIGRATIONS[:INDEXES])
        await run(legacy)
    indexes = of_tables(await read_catalog(legacy), "indexes")
    whole = {entry for entry in indexes if entry[1] != "reporting_outbox_due"}  # a later migration drops that one
    await legacy.execute("DELETE FROM reporting_projector_migrations WHERE version = $1", INDEXES)
    await legacy.execute("DROP INDEX fact_turn_day, reporting_outbox_failed")
    assert await run(legacy) == ALL[INDEXES - 1 :]
    catalog = await read_catalog(legacy)
    assert whole <= of_tables(catalog, "indexes")
    assert duplicates(catalog) == []


async def test_the_tables_stay_where_the_platform_has_them_though_the_role_has_a_schema_of_its_own(
    legacy: asyncpg.Connection, rules: BatchRules
) -> None:
    await legacy.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")  # comes first in the default search_path
    await run(legacy)
    relations = (await read_catalog(legacy))["relations"]
    assert {entry[:2] for entry in relations if entry[1] in TABLES} == {("public", name) for name in TABLES}
    assert (await run_batch(legacy, rules, 10)).claimed == 2


async def test_new_tables_are_made_beside_the_platforms_though_the_role_has_a_schema_of_its_own(
    empty_database: str,
) -> None:
    async with opened(empty_database) as connection:
        await connection.execute(SOURCES)
        await connection.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")
        await run(connection)
        relations = (await read_catalog(connection))["relations"]
        # Where the application, whose role is another, finds the outbox too.
        assert {entry[:2] for entry in relations if entry[1] in TABLES} == {("public", name) for name in TABLES}


async def test_a_schema_whose_name_needs_quotes_may_be_in_the_search_path(
    legacy: asyncpg.Connection, rules: BatchRules
) -> None:
    await legacy.execute('CREATE SCHEMA "Old-Platform"; SET search_path = public, "Old-Platform"')
    assert await run(legacy) == ALL
    assert (await run_batch(legacy, rules, 10)).claimed == 2
