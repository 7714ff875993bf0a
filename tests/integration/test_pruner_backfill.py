"""What is pruned is neither missing nor in the way: facts, not completed rows, tell what is to be done."""

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from projector.batch import BatchRules
from projector.database import open_pool
from projector.pruner import Pruner
from projector.registry import Registry
from tests.backfills import ALL, STALE, add_one_of_each, assert_nothing_is_missing, drain, enqueued
from tests.daemons import settings_for
from tests.oracle import differences, expected_facts, read_facts, read_sources
from tests.pruning import pruner_on

ONE_OF_EACH = {"event": 1, "llm_generation": 1, "session": 1, "usage_ledger": 1}


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def pruner(database: str, registry: Registry) -> AsyncIterator[Pruner]:
    pool = await open_pool(settings_for(database), 1)
    pruner = pruner_on(pool, registry)
    pruner.retention = 0
    yield pruner
    pool.terminate()


@pytest.fixture
async def sources(connection: asyncpg.Connection, rules: BatchRules, pruner: Pruner) -> dict[str, UUID]:
    """One source of each type, projected, and its outbox row pruned."""
    made = await add_one_of_each(connection)
    assert await enqueued(connection) == ONE_OF_EACH
    await drain(connection, rules)
    assert await enqueued(connection) == {}  # the backfill has come to its end
    await prune(connection, pruner, rows=4)
    return made


async def prune(connection: asyncpg.Connection, pruner: Pruner, rows: int) -> None:
    pruner.sweep_at = 0
    assert await pruner.round() == rows
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE status = 'completed'") == 0


async def assert_facts_are_right(connection: asyncpg.Connection) -> None:
    assert differences(expected_facts(await read_sources(connection)), await read_facts(connection)) == []


@pytest.mark.usefixtures("sources")
async def test_what_has_its_fact_is_not_missing_once_its_row_is_pruned(connection: asyncpg.Connection) -> None:
    await assert_nothing_is_missing(connection)
    assert await enqueued(connection) == {}
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox") == 0


@pytest.mark.usefixtures("sources")
async def test_lost_facts_are_enqueued_once_and_come_back(
    connection: asyncpg.Connection, rules: BatchRules, pruner: Pruner
) -> None:
    await connection.execute("TRUNCATE fact_session, fact_tool_call, fact_llm_generation, fact_budget_posting")
    assert await enqueued(connection) == ONE_OF_EACH
    assert await enqueued(connection) == {}
    await drain(connection, rules)
    await assert_facts_are_right(connection)
    await prune(connection, pruner, rows=4)
    await assert_nothing_is_missing(connection)


@pytest.mark.usefixtures("sources")
async def test_all_sources_are_enqueued_once_more_without_their_rows(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    assert await enqueued(connection, mode=ALL) == ONE_OF_EACH
    await drain(connection, rules)
    await assert_facts_are_right(connection)


async def test_a_session_that_changed_has_one_row_whose_version_is_new(
    connection: asyncpg.Connection, rules: BatchRules, sources: dict[str, UUID], pruner: Pruner
) -> None:
    await connection.execute("UPDATE sessions SET status = 'idle', updated_at = now() + interval '1 s'")
    assert await enqueued(connection, mode=STALE) == {"session": 1}
    assert await enqueued(connection, mode=STALE) == {}
    (row,) = await connection.fetch("SELECT source_id, source_version FROM reporting_outbox")
    assert row["source_id"] == str(sources["session"])
    assert row["source_version"].endswith("Z")
    await drain(connection, rules)
    await assert_facts_are_right(connection)
    await prune(connection, pruner, rows=1)
    await assert_nothing_is_missing(connection)
