"""LLM generations (contract: facts.md, fact_llm_generation)."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, MOST, fact, facts_of, long_text, shortened
from tests.obstacles import opened
from tests.platform_rows import add_generation, add_named, add_org, add_session
from tests.scenes import project

TABLE = "fact_llm_generation"


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def generations(
    connection: asyncpg.Connection, rules: BatchRules, rows: list[dict[str, Any]], *columns: str
) -> list[Any]:
    """Columns of the facts that generations give, in order."""
    await add_org(connection)
    written = [await add_generation(connection, **row) for row in rows]
    await project(connection, rules, *(("llm_generation", generation) for generation in written))
    return await facts_of(connection, TABLE, [f"llm_generation:{generation}" for generation in written], *columns)


async def test_a_generation_has_these_columns(database: str, connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    user, principal, app, turn = uuid4(), uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=agent, harness_id=harness, resolved_owner_user_id=user, owner_principal_id=principal,
        app_id=app, blueprint_id="blue",
    )  # fmt: skip
    generation = await add_generation(
        connection, session_id=session, turn_id=turn, event_id=uuid4(), model="large", provider="acme",
        finish_reason="stop", input_tokens=1, output_tokens=20, cache_read_tokens=300, cache_creation_tokens=4000,
        duration_ms=50, created_at=EARLY,
    )  # fmt: skip
    async with opened(database, timezone="Pacific/Kiritimati") as elsewhere:
        result = await project(elsewhere, rules, ("llm_generation", generation))
    assert result.facts == {"llm_generations": 1}
    assert await fact(connection, TABLE, f"llm_generation:{generation}") == {
        "org_id": 1, "source_key": f"llm_generation:{generation}", "session_id": session, "turn_id": str(turn),
        "user_id": user, "principal_id": principal, "agent_id": agent, "agent_name_snapshot": "Ada",
        "harness_id": harness, "harness_name_snapshot": "Shell", "app_id": app, "blueprint_id": "blue",
        "created_at": EARLY, "time_bucket_day": EARLY_DAY, "model": "large", "provider": "acme",
        "finish_reason": "stop", "input_tokens": 1, "output_tokens": 20, "cache_read_tokens": 300,
        "cache_creation_tokens": 4000, "total_tokens": 4321, "duration_ms": 50, "time_to_first_token_ms": 0,
        "success_count": 1, "error_count": 0,
    }  # fmt: skip


async def test_a_generation_without_a_session_has_no_dimensions(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    (row,) = await generations(connection, rules, [{"created_at": EARLY}])
    assert {name: value for name, value in row.items() if value not in (None, 0)} == {
        "org_id": 1, "source_key": row["source_key"], "created_at": EARLY, "time_bucket_day": EARLY_DAY,
        "success_count": 1,
    }  # fmt: skip
    assert row["duration_ms"] == 0


async def test_numbers_stand_as_they_are_and_a_total_that_does_not_fit_is_the_largest_bigint(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = [
        {"input_tokens": MOST, "output_tokens": 1},
        {"input_tokens": MOST, "output_tokens": MOST, "cache_read_tokens": MOST, "cache_creation_tokens": MOST},
        {"input_tokens": MOST, "cache_creation_tokens": -1},
        {"input_tokens": -5, "output_tokens": 3},
        {"duration_ms": 2_147_483_647},
    ]
    found = await generations(connection, rules, rows, "input_tokens", "total_tokens", "duration_ms")
    assert found == [(MOST, MOST, 0), (MOST, MOST, 0), (MOST, MOST - 1, 0), (-5, -2, 0), (0, 0, 2_147_483_647)]


async def test_texts_of_any_length_are_projected_and_those_in_an_index_bounded(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    text = long_text()
    rows = [{"model": text, "provider": text, "finish_reason": text}, {"model": "", "provider": "x" * 1000}]
    found = await generations(connection, rules, rows, "model", "provider", "finish_reason")
    assert found == [(shortened(text), shortened(text), text), ("", "x" * 1000, None)]


async def test_usage_that_is_reported_late_replaces_the_tokens(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    source = ("llm_generation", await add_generation(connection, input_tokens=0, model="large"))
    await project(connection, rules, source)
    await connection.execute("UPDATE llm_generations SET input_tokens = 7, output_tokens = 8")
    await project(connection, rules, source)
    columns = ("input_tokens", "output_tokens", "total_tokens", "model")
    assert await fact(connection, TABLE, f"llm_generation:{source[1]}", *columns) == (7, 8, 15, "large")
