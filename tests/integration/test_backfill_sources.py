"""Which sources a backfill finds: those that lack a fact, or hold a stale one (contract: facts.md)."""

from typing import Any

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.backfills import (
    STALE,
    assert_nothing_is_missing,
    drain,
    enqueued,
    run,
    waiting,
)
from tests.platform_rows import (
    add_event,
    add_generation,
    add_named,
    add_org,
    add_session,
)
from tests.scenes import SCENES, Scene, add_cast, assert_facts_follow, write_session


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_a_source_without_facts_is_enqueued_projected_and_not_missing_any_more(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    source = await scene.write(connection, await add_cast(connection))
    await run(connection)
    assert (scene.source_type, source) in await waiting(connection)
    await drain(connection, rules)
    await assert_facts_follow(connection)
    await assert_nothing_is_missing(connection)


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_each_fact_that_is_lost_makes_its_source_missing(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    source = await scene.write(connection, await add_cast(connection))
    await run(connection)
    await drain(connection, rules)
    for table in scene.tables:
        facts = await connection.fetch(
            f"SELECT source_key FROM {table} WHERE source_key LIKE $1", f"{scene.source_type}:{source}%"
        )
        assert facts
        for fact in facts:
            await connection.execute(f"DELETE FROM {table} WHERE source_key = $1", fact["source_key"])
            assert await enqueued(connection) == {scene.source_type: 1}, fact["source_key"]
            assert await waiting(connection) == [(scene.source_type, source)]
            await drain(connection, rules)
            await assert_facts_follow(connection)


@pytest.mark.parametrize("scene", SCENES, ids=str)
async def test_a_fact_of_another_org_with_the_same_key_is_no_fact_of_this_one(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    await add_org(connection, 2)
    source = await scene.write(connection, await add_cast(connection))
    await run(connection)
    await drain(connection, rules)
    for table in scene.tables:
        keys = await connection.fetch(
            f"SELECT source_key FROM {table} WHERE source_key LIKE $1", f"{scene.source_type}:{source}%"
        )
        for key in keys:
            await connection.execute(f"UPDATE {table} SET org_id = 2 WHERE source_key = $1", key[0])
            assert await enqueued(connection, dry_run=True) == {scene.source_type: 1}, key[0]
            await connection.execute(f"UPDATE {table} SET org_id = 1 WHERE source_key = $1", key[0])


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        *((kind, {}) for kind in ("tool.completed", "turn.completed", "turn.failed", "turn.cancelled")),
        *(
            ("capability.usage", {"records": [{"capability_id": "web", "usage_kind": kind}]})
            for kind in ("configured", "resolved", "exposed", "invoked", "effect_ran")
        ),
        ("output.message.replaced", {"guardrail_capability_id": "guard"}),
    ],
    ids=str,
)
async def test_every_event_that_gives_a_fact_is_missing_until_it_has_it(
    connection: asyncpg.Connection, rules: BatchRules, event_type: str, data: dict[str, Any]
) -> None:
    await add_org(connection)
    await add_event(connection, await add_session(connection), event_type, data)
    assert await enqueued(connection) == {"event": 1, "session": 1}
    await drain(connection, rules)
    await assert_nothing_is_missing(connection)
    await assert_facts_follow(connection)


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("turn.sealed", {"turn_id": "t"}),
        ("message.user", {"capability_id": "web"}),
        ("capability.usage", {"records": "none"}),
        ("capability.usage", {"records": [{"capability_id": "", "usage_kind": "exposed"}]}),
        ("capability.usage", {"records": [{"capability_id": "web", "usage_kind": "odd"}, 7, None, []]}),
        ("output.message.replaced", {"guardrail_capability_id": 7}),
        ("output.message.replaced", {}),
    ],
    ids=str,
)
async def test_an_event_that_gives_no_fact_is_never_missing(
    connection: asyncpg.Connection, event_type: str, data: dict[str, Any]
) -> None:
    await add_org(connection)
    await add_event(connection, await add_session(connection), event_type, data)
    assert await enqueued(connection) == {"session": 1}


@pytest.mark.parametrize(
    "scene", [scene for scene in SCENES if scene.source_type in {"session", "llm_generation"}], ids=str
)
async def test_a_source_that_changed_without_a_word_is_stale_but_not_missing(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(connection)
    source = await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await scene.change(connection, cast, source)
    found = await enqueued(connection, mode=STALE)
    assert found[scene.source_type] == 1
    await drain(connection, rules)
    await assert_facts_follow(connection)
    await assert_nothing_is_missing(connection)


@pytest.mark.parametrize("column", ["input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"])
async def test_any_tokens_that_came_late_make_a_generation_stale(
    connection: asyncpg.Connection, rules: BatchRules, column: str
) -> None:
    await add_org(connection)
    await add_generation(connection)
    await run(connection)
    await drain(connection, rules)
    await connection.execute(f"UPDATE llm_generations SET {column} = {column} + 1")
    assert await enqueued(connection, dry_run=True) == {}
    assert await enqueued(connection, mode=STALE, dry_run=True) == {"llm_generation": 1}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE agents SET name = 'other'",
        "UPDATE harnesses SET name = 'other'",
        "UPDATE sessions SET status = 'finished', finished_at = now()",
        "UPDATE sessions SET capabilities = '[]'",
        "DELETE FROM agent_capabilities",
        "DELETE FROM harness_capabilities",
    ],
)
async def test_whatever_a_sessions_facts_follow_makes_them_stale(
    connection: asyncpg.Connection, rules: BatchRules, change: str
) -> None:
    cast = await add_cast(connection)
    scene = next(scene for scene in SCENES if scene.source_type == "session")
    await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await connection.execute(change)
    assert await enqueued(connection, dry_run=True) == {}
    assert await enqueued(connection, mode=STALE) == {"session": 1}
    await drain(connection, rules)
    await assert_facts_follow(connection)


@pytest.mark.parametrize(
    "change",
    [
        "updated_at = updated_at + interval '1 microsecond'", "status = 'idle'", "finished_at = now()",
        "turn_count = turn_count + 1", "tool_call_count = tool_call_count + 1",
    ],
)  # fmt: skip
async def test_each_column_that_a_session_may_be_ahead_in_makes_it_stale(
    connection: asyncpg.Connection, rules: BatchRules, change: str
) -> None:
    await write_session(connection, await add_cast(connection))
    await run(connection)
    await drain(connection, rules)
    await connection.execute("SET session_replication_role = replica")  # no trigger: only this column changes
    await connection.execute(f"UPDATE sessions SET {change}")
    await connection.execute("SET session_replication_role = origin")
    assert await enqueued(connection, dry_run=True) == {}
    assert await enqueued(connection, mode=STALE, dry_run=True) == {"session": 1}


async def test_a_capability_that_is_configured_anew_is_missing(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    cast = await add_cast(connection)
    scene = next(scene for scene in SCENES if scene.source_type == "session")
    await scene.write(connection, cast)
    await run(connection)
    await drain(connection, rules)
    await connection.execute("INSERT INTO agent_capabilities VALUES ($1, 'browser')", cast.agent)
    assert await enqueued(connection) == {"session": 1}
    await drain(connection, rules)
    await assert_facts_follow(connection)


async def test_what_another_org_has_makes_no_session_missing_or_stale(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for org_id in (1, 2):
        await add_org(connection, org_id)
    agent, harness = [await add_named(connection, table, 2, "theirs") for table in ("agents", "harnesses")]
    await connection.execute("INSERT INTO agent_capabilities VALUES ($1, 'browser')", agent)
    await connection.execute("INSERT INTO harness_capabilities VALUES ($1, 'shell')", harness)
    await add_session(connection, agent_id=agent, harness_id=harness, capabilities=["web"])
    await run(connection)
    await drain(connection, rules)
    await assert_nothing_is_missing(connection)


async def test_a_record_of_use_is_no_configured_capability_of_its_session(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection, capabilities=["web"])
    await add_event(
        connection, session, "capability.usage",
        {"records": [{"capability_id": "web", "usage_kind": kind} for kind in ("configured", "exposed")]},
    )  # fmt: skip
    await run(connection)
    await drain(connection, rules)
    await assert_nothing_is_missing(connection)


async def test_a_session_with_a_long_status_is_not_stale_for_good(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await connection.execute("ALTER TABLE sessions ALTER status TYPE text")
    try:
        await add_org(connection)
        await add_session(connection, status="x" * 2000)
        await run(connection)
        await drain(connection, rules)
        await assert_nothing_is_missing(connection)
    finally:
        await connection.execute("ALTER TABLE sessions ALTER status TYPE varchar(50) USING left(status, 50)")
