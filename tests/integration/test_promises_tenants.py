"""Tenants never mix (design: promise 4): whatever ids a row carries, nothing of another org comes into a fact."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from projector.batch import BatchRules, run_batch
from projector.settings import OnSourceGone
from tests.oracle import read_facts
from tests.platform_rows import add_event, add_generation, add_posting, add_session, enqueue, facts, outbox_row
from tests.scenes import SCENES, Cast, Scene, add_cast, assert_facts_follow, count_facts, project, write_session

every_scene = pytest.mark.parametrize("scene", SCENES, ids=str)


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


@pytest.fixture
async def casts(connection: asyncpg.Connection) -> tuple[Cast, Cast]:
    """All that orgs 1 and 2 have."""
    return await add_cast(connection, 1), await add_cast(connection, 2)


def as_if_of(org_id: int, cast: Cast) -> Cast:
    """What a source of one org says, that refers to another org's rows."""
    return replace(cast, org_id=org_id)


def only(fact: asyncpg.Record, *columns: str) -> dict[str, Any]:
    return {column: fact[column] for column in columns}


@pytest.mark.parametrize("on_source_gone", list(OnSourceGone))
@every_scene
async def test_an_outbox_row_of_another_org_gives_no_fact_removes_none_and_completes(
    connection: asyncpg.Connection,
    rules: BatchRules,
    casts: tuple[Cast, Cast],
    scene: Scene,
    on_source_gone: OnSourceGone,
) -> None:
    rules = replace(rules, on_source_gone=on_source_gone)
    known, unknown = [await scene.write(connection, casts[0]) for _ in range(2)]
    await project(connection, rules, (scene.source_type, known))
    before = await read_facts(connection)
    rows = [await enqueue(connection, scene.source_type, source, org_id=2) for source in (known, unknown)]
    result = await run_batch(connection, rules, 10)
    assert [(await outbox_row(connection, row))["status"] for row in rows] == ["completed"] * 2
    assert (result.gone, result.facts, result.removed) == ({scene.source_type: 2}, {}, {})
    assert await read_facts(connection) == before


@every_scene
async def test_rows_of_two_orgs_for_one_source_in_one_batch_give_facts_to_its_own_org_alone(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast], scene: Scene
) -> None:
    mine, theirs = [await scene.write(connection, cast) for cast in casts]
    for org_id in (2, 1):
        for source in (mine, theirs):
            await enqueue(connection, scene.source_type, source, org_id)
    assert (await run_batch(connection, rules, 10)).completed == {scene.source_type: 4}
    await assert_facts_follow(connection, (scene.source_type, mine), (scene.source_type, theirs))
    for table in scene.tables:
        for fact in await facts(connection, table):
            assert f"of {3 - fact['org_id']}" not in str(dict(fact))
            assert str({1: mine, 2: theirs}[fact["org_id"]]) in fact["source_key"]


@every_scene
async def test_ids_of_another_org_are_kept_and_nothing_is_read_through_them(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast], scene: Scene
) -> None:
    source = (scene.source_type, await scene.write(connection, as_if_of(1, casts[1])))
    await project(connection, rules, source)
    await assert_facts_follow(connection, source)
    for table in scene.tables:
        for fact in await facts(connection, table):
            expected = (None, None) if scene.name == "in the background" else (casts[1].agent, casts[1].harness)
            assert (fact["agent_id"], fact["harness_id"]) == expected
            assert (fact["agent_name_snapshot"], fact["harness_name_snapshot"]) == (None, None)
            assert "of 2" not in str(dict(fact))


async def configured(connection: asyncpg.Connection, session: UUID) -> dict[str, str]:
    """Names of a session's configured capabilities, by scope and id."""
    prefix = f"session:{session}:configured:"
    return {
        fact["source_key"].removeprefix(prefix): fact["capability_name_snapshot"]
        for fact in await facts(connection, "fact_capability_usage")
        if fact["source_key"].startswith(prefix)
    }


async def test_capabilities_and_names_come_from_the_sessions_org_alone(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast]
) -> None:
    own, foreign = casts
    sessions = [await write_session(connection, cast) for cast in (own, as_if_of(1, foreign))]
    await project(connection, rules, *(("session", session) for session in sessions))
    declarative = {
        "session:declarative:notes-1": "notes of 1",
        "session:declarative:notes-2": "declarative:notes-2",
    }
    assert await configured(connection, sessions[0]) == {
        "agent:web": "web",
        "harness:shell": "shell",
        "session:files": "files",
        f"session:mcp:{own.mcp_server}": "server of 1",
        f"session:skill:{own.skill}": "skill of 1",
        **declarative,
    }
    assert await configured(connection, sessions[1]) == {
        "session:files": "files",
        f"session:mcp:{foreign.mcp_server}": f"mcp:{foreign.mcp_server}",
        f"session:skill:{foreign.skill}": f"skill:{foreign.skill}",
        **declarative,
    }


async def test_declarative_capabilities_that_two_orgs_name_alike_keep_their_own_display_names(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast]
) -> None:
    for cast in casts:
        await connection.execute(
            "INSERT INTO declarative_capabilities VALUES ($1, 'same', $2)", cast.org_id, f"Same of {cast.org_id}"
        )
    sessions = [await add_session(connection, cast.org_id, capabilities=["declarative:same"]) for cast in casts]
    for cast, session in zip(casts, sessions, strict=True):
        await enqueue(connection, "session", session, cast.org_id)
    await run_batch(connection, rules, 10)
    names = [await configured(connection, session) for session in sessions]
    assert names == [{"session:declarative:same": "Same of 1"}, {"session:declarative:same": "Same of 2"}]


async def test_a_generation_in_another_orgs_session_has_that_sessions_id_and_nothing_of_it(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast]
) -> None:
    session = await write_session(connection, casts[1])
    await project(connection, rules, ("llm_generation", await add_generation(connection, session_id=session)))
    (fact,) = await facts(connection, "fact_llm_generation")
    dimensions = ("user_id", "principal_id", "agent_id", "harness_id", "app_id", "blueprint_id")
    names = ("agent_name_snapshot", "harness_name_snapshot")
    assert only(fact, *dimensions, *names) == dict.fromkeys((*dimensions, *names))
    assert (fact["org_id"], fact["session_id"]) == (1, session)


async def test_a_posting_to_another_orgs_budget_and_session_has_their_ids_and_nothing_of_them(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast]
) -> None:
    session = await write_session(connection, casts[1])
    posting = await add_posting(connection, session_id=session, budget_id=casts[1].budget)
    await project(connection, rules, ("usage_ledger", posting))
    (fact,) = await facts(connection, "fact_budget_posting")
    read = ("budget_subject_type", "budget_subject_id", "app_id", "blueprint_id")
    assert only(fact, *read) == dict.fromkeys(read)
    assert only(fact, "session_id", "budget_id") == {"session_id": session, "budget_id": casts[1].budget}


async def test_a_tool_call_does_not_count_for_another_sessions_turn_of_the_same_id(
    connection: asyncpg.Connection, rules: BatchRules, casts: tuple[Cast, Cast]
) -> None:
    sessions = [await write_session(connection, cast) for cast in (*casts, casts[0])]
    turns = [await add_event(connection, session, "turn.completed", {"turn_id": "turn_1"}) for session in sessions]
    tool = await add_event(connection, sessions[0], "tool.completed", {"turn_id": "turn_1"})
    for org_id, event in zip((1, 2, 1, 1), (*turns, tool), strict=True):
        await enqueue(connection, "event", event, org_id)
        assert (await run_batch(connection, rules, 1)).completed == {"event": 1}
    counts = {fact["session_id"]: fact["tool_call_count"] for fact in await facts(connection, "fact_turn")}
    assert counts == dict(zip(sessions, (1, 0, 0), strict=True))
    assert await count_facts(connection) == {"fact_turn": 3, "fact_tool_call": 1}
