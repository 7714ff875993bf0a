"""What every projection promises (design: promise 2): replaying changes nothing, what is new replaces what was."""

import json
from collections import Counter
from dataclasses import replace

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.projections import BUILT_IN, load_registry
from projector.registry import Projection
from projector.settings import OnSourceGone
from tests.obstacles import opened, set_columns
from tests.oracle import FACT_COLUMNS, read_facts
from tests.platform_rows import add_event, add_org, add_session, enqueue, facts, outbox_row
from tests.scenes import (
    SCENES,
    Scene,
    add_cast,
    assert_facts_follow,
    count_facts,
    project,
    scenes_of,
    write_session,
)


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


every_projection = pytest.mark.parametrize("projection", BUILT_IN, ids=lambda projection: projection.name)
every_scene = pytest.mark.parametrize("scene", SCENES, ids=str)


@every_projection
def test_every_projection_has_scenes_for_all_its_tables(projection: Projection) -> None:
    scenes = scenes_of(projection.source_type)
    assert {table for scene in scenes for table in scene.tables} == {table.name for table in projection.tables}


def test_every_projection_that_is_installed_has_scenes() -> None:
    for projection in load_registry():
        assert scenes_of(projection.source_type)


@every_scene
async def test_a_scene_gives_facts_in_its_tables_and_other_ones_once_it_changes(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(connection)
    source = await scene.write(connection, cast)
    await project(connection, rules, (scene.source_type, source))
    assert set(await count_facts(connection)) == set(scene.tables)
    before = await read_facts(connection)
    await assert_facts_follow(connection, (scene.source_type, source))
    changed = await scene.change(connection, cast, source)
    await project(connection, rules, changed)
    assert (await read_facts(connection))[scene.tables[0]] != before[scene.tables[0]]
    await assert_facts_follow(connection, (scene.source_type, source), changed)


@every_scene
async def test_projecting_again_changes_nothing_but_projected_at(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    cast = await add_cast(connection)
    sources = [(scene.source_type, await scene.write(connection, cast)) for _ in range(3)]
    await project(connection, rules, *sources)
    before, first = await read_facts(connection), await facts(connection, scene.tables[0])
    result = await project(connection, rules, *sources, *sources)
    assert await read_facts(connection) == before
    assert sum(result.facts.values()) == sum((await count_facts(connection)).values())
    again = await facts(connection, scene.tables[0])
    assert all(new["projected_at"] > old["projected_at"] for old, new in zip(first, again, strict=True))


@every_scene
async def test_rows_of_one_source_of_which_some_have_failed_before_are_one_fact(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene
) -> None:
    source = (scene.source_type, await scene.write(connection, await add_cast(connection)))
    failed = await enqueue(connection, *source)
    await set_columns(connection, [failed], status="failed", attempts=3)
    await enqueue(connection, *source)
    assert (await run_batch(connection, rules, 10)).completed == {scene.source_type: 2}
    await assert_facts_follow(connection, source)


async def test_facts_do_not_depend_on_how_sources_are_batched(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    cast = await add_cast(connection)
    for scene in SCENES:
        source = await scene.write(connection, cast)
        await enqueue(connection, scene.source_type, source)
        await enqueue(connection, *await scene.change(connection, cast, source))
    for session in await connection.fetch("SELECT id FROM sessions"):
        await enqueue(connection, "session", session["id"])
    outcomes = []
    for limit in (1000, 1, 3):
        for table in FACT_COLUMNS:
            await connection.execute(f"DELETE FROM {table}")
        await connection.execute("UPDATE reporting_outbox SET status = 'pending'")
        while (await run_batch(connection, rules, limit)).claimed:
            pass
        await assert_facts_follow(connection)
        outcomes.append(await read_facts(connection))
    assert outcomes[0] == outcomes[1] == outcomes[2]


async def test_a_capability_that_is_no_longer_configured_loses_its_fact(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    cast = await add_cast(connection)
    session, other = [await write_session(connection, cast) for _ in range(2)]
    # A record of usage may be of the kind "configured" too: it is not the session's to remove.
    records = [{"capability_id": "web", "usage_kind": "configured"}]
    event = await add_event(connection, session, "capability.usage", {"records": records})
    everything = [("session", session), ("session", other), ("event", event)]
    await project(connection, rules, *everything)
    await connection.execute("DELETE FROM agent_capabilities")
    await connection.execute(
        "UPDATE sessions SET harness_id = NULL, capabilities = '[\"files\"]' WHERE id = $1", session
    )
    await project(connection, rules, ("session", session))
    await assert_facts_follow(connection, ("session", session))
    keys = {fact["source_key"] for fact in await facts(connection, "fact_capability_usage")}
    mine = {key for key in keys if str(other) not in key}
    assert mine == {f"session:{session}:configured:session:files", f"event:{event}:capability_usage:1"}
    assert len(keys - mine) == 7  # the other session keeps all of its own until it is projected itself


async def test_records_and_capabilities_that_an_event_no_longer_gives_lose_their_facts(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    record = {"capability_id": "web", "usage_kind": "exposed"}
    given = {
        "capability.usage": {"records": [record] * 11},
        "tool.completed": {"capability_id": "web"},
        "output.message.replaced": {"guardrail_capability_id": "guard"},
    }
    events = {kind: await add_event(connection, session, kind, data) for kind, data in given.items()}
    kept = await add_event(connection, session, "capability.usage", given["capability.usage"])
    sources = [("event", event) for event in events.values()]
    await project(connection, rules, *sources, ("event", kept))
    assert await count_facts(connection) == {"fact_capability_usage": 24, "fact_tool_call": 1}
    await connection.execute("SET session_replication_role = replica")  # no triggers: that on events refuses updates
    await connection.execute("UPDATE events SET data = '{}' WHERE id <> $1", kept)
    fewer = json.dumps({"records": [{}, record]})
    await connection.execute("UPDATE events SET data = $2 WHERE id = $1", events["capability.usage"], fewer)
    await project(connection, rules, *sources)
    assert await count_facts(connection) == {"fact_capability_usage": 12, "fact_tool_call": 1}
    await assert_facts_follow(connection, *sources, ("event", kept))


async def test_a_session_whose_updated_at_runs_backwards_still_ends_in_the_row_committed_last(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    async with opened(database) as slow, opened(database) as quick:
        async with slow.transaction():
            began = await slow.fetchval("SELECT now()")  # what its update will set
            await quick.execute("UPDATE sessions SET status = 'earlier'")
            await project(connection, rules, ("session", session))
            await slow.execute("UPDATE sessions SET status = 'last'")
        assert await connection.fetchval("SELECT updated_at FROM sessions") == began
    (before,) = await facts(connection, "fact_session")
    await project(connection, rules, ("session", session))
    (after,) = await facts(connection, "fact_session")
    assert [before["session_status"], after["session_status"]] == ["earlier", "last"]
    assert before["last_active_at"] > after["last_active_at"] == began


@pytest.mark.parametrize("on_source_gone", list(OnSourceGone))
@every_scene
async def test_a_source_that_is_gone_completes_and_keeps_or_loses_its_facts_as_set(
    connection: asyncpg.Connection, rules: BatchRules, scene: Scene, on_source_gone: OnSourceGone
) -> None:
    rules = replace(rules, on_source_gone=on_source_gone)
    cast = await add_cast(connection)
    gone, other = [(scene.source_type, await scene.write(connection, cast)) for _ in range(2)]
    never = (scene.source_type, await scene.write(connection, cast))
    await project(connection, rules, gone, other)
    before, counts = await read_facts(connection), await count_facts(connection)
    for source in (gone, never):
        await scene.delete(connection, source[1])
    rows = [await enqueue(connection, *source) for source in (gone, never)]
    result = await run_batch(connection, rules, 10)
    assert [(await outbox_row(connection, row))["status"] for row in rows] == ["completed"] * 2
    assert (result.completed, result.gone) == ({scene.source_type: 2}, {scene.source_type: 2})
    if on_source_gone is OnSourceGone.KEEP:
        assert await read_facts(connection) == before
        assert result.removed == {}
    else:
        await assert_facts_follow(connection, gone, other)
        datasets = {table.name: table.dataset for projection in BUILT_IN for table in projection.tables}
        half = Counter({datasets[table]: count // 2 for table, count in counts.items()})
        assert Counter(result.removed) == half


@pytest.mark.parametrize("kind", ["turn.sealed", "message.created", "", "tool.started", "TOOL.COMPLETED"])
async def test_event_types_that_make_no_fact_complete(
    connection: asyncpg.Connection, rules: BatchRules, kind: str
) -> None:
    await add_org(connection)
    data = {"tool_name": "search", "capability_id": "web", "guardrail_capability_id": "web", "turn_id": "turn_1"}
    event = await add_event(connection, await add_session(connection), kind, data)
    result = await project(connection, rules, ("event", event))
    assert (result.completed, result.gone, result.facts) == ({"event": 1}, {}, {})
    assert await count_facts(connection) == {}
