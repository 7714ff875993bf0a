"""Sessions: their latest state and their configured capabilities (contract: facts.md)."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector.batch import BatchRules
from tests.derivations import EARLY, EARLY_DAY, MOST, at, fact, facts_of, long_text, shortened
from tests.obstacles import opened
from tests.platform_rows import add_named, add_org, add_session, facts
from tests.scenes import count_facts, project

USAGE = "fact_capability_usage"


@pytest.fixture
def database(reused_database: str) -> str:
    return reused_database


async def sessions(
    connection: asyncpg.Connection, rules: BatchRules, rows: list[dict[str, Any]], *columns: str
) -> list[Any]:
    """Columns of the facts that sessions give, in order."""
    await add_org(connection)
    written = [await add_session(connection, **row) for row in rows]
    await project(connection, rules, *(("session", session) for session in written))
    return await facts_of(connection, "fact_session", [f"session:{session}" for session in written], *columns)


async def configured(connection: asyncpg.Connection, session: UUID) -> dict[str, str]:
    """Names of the capabilities configured for a session, by scope and id."""
    prefix = f"session:{session}:configured:"
    return {
        row["source_key"].removeprefix(prefix): row["capability_name_snapshot"]
        for row in await facts(connection, USAGE)
        if row["source_key"].startswith(prefix)
    }


async def configure(connection: asyncpg.Connection, rules: BatchRules, capabilities: Any) -> dict[str, str]:
    """The same for a new session of its own."""
    await add_org(connection)
    session = await add_session(connection, capabilities=capabilities)
    await project(connection, rules, ("session", session))
    return await configured(connection, session)


async def test_a_session_and_what_is_configured_for_it_have_these_columns(
    database: str, connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    user, principal, app = uuid4(), uuid4(), uuid4()
    session = await add_session(
        connection, agent_id=agent, harness_id=harness, resolved_owner_user_id=user, owner_principal_id=principal,
        app_id=app, blueprint_id="blue", status="idle", created_at=EARLY, updated_at=at(10), started_at=at(8),
        finished_at=at(8, 0, 1, 500_000), turn_count=2, tool_call_count=3, total_input_tokens=1,
        total_output_tokens=20, total_cache_read_tokens=300, total_cache_creation_tokens=4000,
        capabilities=[{"ref": "web", "config": {"key": "secret"}}],
    )  # fmt: skip
    async with opened(database, timezone="Pacific/Kiritimati") as elsewhere:
        result = await project(elsewhere, rules, ("session", session))
    assert result.facts == {"sessions": 1, "capability_usage": 1}
    common = {
        "org_id": 1, "session_id": session, "user_id": user, "principal_id": principal, "agent_id": agent,
        "agent_name_snapshot": "Ada", "harness_id": harness, "harness_name_snapshot": "Shell", "app_id": app,
        "blueprint_id": "blue", "created_at": EARLY, "time_bucket_day": EARLY_DAY,
    }  # fmt: skip
    assert await fact(connection, "fact_session", f"session:{session}") == common | {
        "source_key": f"session:{session}", "session_status": "idle", "started_at": at(8),
        "finished_at": at(8, 0, 1, 500_000), "last_active_at": at(10), "session_count": 1, "duration_ms": 1500,
        "turn_count": 2, "tool_call_count": 3, "input_tokens": 1, "output_tokens": 20, "cache_read_tokens": 300,
        "cache_creation_tokens": 4000, "total_tokens": 4321,
    }  # fmt: skip
    key = f"session:{session}:configured:session:web"
    assert await fact(connection, USAGE, key) == common | {
        "source_key": key, "turn_id": None, "capability_id": "web", "capability_name_snapshot": "web",
        "capability_usage_kind": "configured", "tool_name": None, "usage_count": 1, "duration_ms": 0,
    }  # fmt: skip


async def test_a_session_that_has_nothing_yet_counts_nothing(connection: asyncpg.Connection, rules: BatchRules) -> None:
    (row,) = await sessions(connection, rules, [{}])
    assert {name for name, value in row.items() if value not in (None, 0)} == {
        "org_id", "source_key", "session_id", "principal_id", "created_at", "time_bucket_day", "session_status",
        "last_active_at", "session_count",
    }  # fmt: skip
    assert await count_facts(connection) == {"fact_session": 1}


async def test_a_duration_is_from_start_to_finish_in_milliseconds_and_never_below_0(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    cases = {
        (at(8), at(9)): 3_600_000,
        (at(8), at(8)): 0,
        (at(9), at(8)): 0,
        (at(8), at(8, 0, 0, 1499)): 1,
        (at(8), at(8, 0, 0, 1500)): 2,
        (at(8, 0, 0, 1), at(8)): 0,
        (at(8), at(8).replace(year=2126)): 36_524 * 86_400_000,
        (at(8), None): 0,
        (None, at(8)): 0,
        (None, None): 0,
    }
    rows = [{"started_at": started, "finished_at": finished} for started, finished in cases]
    assert await sessions(connection, rules, rows, "duration_ms") == list(cases.values())


@pytest.mark.parametrize("ends", ["started_at = 'infinity'", "finished_at = 'infinity'", "started_at = '-infinity'"])
async def test_a_session_that_never_ends_is_projected(
    connection: asyncpg.Connection, rules: BatchRules, ends: str
) -> None:
    await add_org(connection)
    session = await add_session(connection, started_at=at(8), finished_at=at(9))
    await connection.execute(f"UPDATE sessions SET {ends}")
    await project(connection, rules, ("session", session))
    assert await fact(connection, "fact_session", f"session:{session}", "duration_ms") == 0


async def test_a_total_that_does_not_fit_is_the_largest_bigint(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    rows = [
        {"total_input_tokens": MOST, "total_output_tokens": 1},
        {"total_input_tokens": MOST, "total_cache_read_tokens": MOST, "total_cache_creation_tokens": MOST},
        {"total_input_tokens": MOST, "total_output_tokens": MOST, "total_cache_creation_tokens": -MOST},
        {"total_cache_creation_tokens": MOST},
    ]
    found = await sessions(connection, rules, rows, "total_tokens", "cache_creation_tokens")
    assert found == [(MOST, 0), (MOST, MOST), (MOST, -MOST), (MOST, MOST)]


async def test_capabilities_are_configured_in_three_scopes(connection: asyncpg.Connection, rules: BatchRules) -> None:
    await add_org(connection)
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    for table, owner in (("agent_capabilities", agent), ("harness_capabilities", harness)):
        for capability in ("web", "files", "", "x" * 255):
            await connection.execute(f"INSERT INTO {table} VALUES ($1, $2)", owner, capability)
    both = await add_session(connection, agent_id=agent, harness_id=harness, capabilities=["web"])
    one = await add_session(connection, agent_id=agent)
    none = await add_session(connection, agent_id=uuid4(), harness_id=uuid4())
    await project(connection, rules, *(("session", session) for session in (both, one, none)))
    ids = ("web", "files", "x" * 255)
    in_agent, in_harness = ({f"{scope}:{name}": name for name in ids} for scope in ("agent", "harness"))
    assert await configured(connection, both) == in_agent | in_harness | {"session:web": "web"}
    assert await configured(connection, one) == in_agent
    assert await configured(connection, none) == {}


CAPABILITIES: list[tuple[Any, set[str]]] = [
    ([{"ref": "web"}], {"web"}),
    (["web"], {"web"}),
    (["web", {"ref": "web"}, "web", {"ref": "web", "config": {}}], {"web"}),
    (["web", "Web", " web"], {"web", "Web", " web"}),
    ([7, 1.5, True, None, [], ["web"], {}, "", {"ref": ""}, {"ref": None}], set()),
    ([{"ref": 7}, {"ref": ["web"]}, {"ref": {"ref": "web"}}, {"id": "web"}, {"Ref": "web"}], set()),
    ([7, "web", None], {"web"}),
    (["7", "true", "null", "[]", "{}", '"'], {"7", "true", "null", "[]", "{}", '"'}),
    (["a:b:c", "a%b", "a_b", "a\\b", "a\nb", "ü🦀"], {"a:b:c", "a%b", "a_b", "a\\b", "a\nb", "ü🦀"}),
    ([], set()),
    ({}, set()),
    ({"ref": "web"}, set()),
    ("web", set()),
    (7, set()),
    (True, set()),
    (None, set()),
]


async def test_a_sessions_own_capabilities_are_strings_and_refs_that_are_not_empty(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    for capabilities, expected in CAPABILITIES:
        found = await configure(connection, rules, capabilities)
        assert found == {f"session:{name}": name for name in expected}, capabilities


async def test_capabilities_are_named_by_what_they_refer_to_else_by_their_id(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    server = await add_named(connection, "mcp_servers", 1, "Server")
    skill = await add_named(connection, "skills", 1, "Skill")
    await connection.execute(
        "INSERT INTO declarative_capabilities VALUES (1, 'shown', 'Shown'), (1, 'plain', NULL), (1, 'a:b', 'Colon')"
    )
    named = {
        f"mcp:{server}": "Server",
        f"skill:{skill}": "Skill",
        "declarative:shown": "Shown",
        "declarative:plain": "plain",
        "declarative:a:b": "Colon",
    }
    unnamed = [
        f"mcp:{skill}", f"skill:{server}", f"mcp:{uuid4()}", f"mcp:{server}x", f"mcp: {server}", "mcp:",
        "skill:no uuid", f"declarative:{server}", "declarative:", "declarative:SHOWN", "Declarative:shown", str(server),
        "shown",
    ]  # fmt: skip
    found = await configure(connection, rules, [*named, *({"ref": name} for name in unnamed)])
    assert found == {f"session:{name}": named.get(name, name) for name in [*named, *unnamed]}


async def test_agents_and_harnesses_capabilities_are_named_too(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    skill = await add_named(connection, "skills", 1, "Skill")
    agent = await add_named(connection, "agents", 1, "Ada")
    harness = await add_named(connection, "harnesses", 1, "Shell")
    await connection.execute("INSERT INTO agent_capabilities VALUES ($1, $2)", agent, f"skill:{skill}")
    await connection.execute("INSERT INTO harness_capabilities VALUES ($1, $2)", harness, f"skill:{skill}")
    session = await add_session(connection, agent_id=agent, harness_id=harness)
    await project(connection, rules, ("session", session))
    assert await configured(connection, session) == {
        f"agent:skill:{skill}": "Skill",
        f"harness:skill:{skill}": "Skill",
    }


async def test_capability_ids_of_any_length_are_projected_kept_apart_and_bounded(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    text = long_text()
    given = [text, text + "x", "ü" * 500, "ü" * 501, f"declarative:{text}", f"mcp:{text}"]
    found = await configure(connection, rules, [given[0], *({"ref": name} for name in given[1:])])
    kept = [given[2]]
    assert found == {f"session:{name if name in kept else shortened(name)}": name for name in given}
    ids = {row["capability_id"] for row in await facts(connection, USAGE)}
    assert ids == {name if name in kept else shortened(name) for name in given}


async def test_a_session_that_lasts_from_the_first_to_the_last_moment_there_is_has_its_duration(
    connection: asyncpg.Connection, rules: BatchRules
) -> None:
    await add_org(connection)
    session = await add_session(connection)
    moments = "started_at = '4713-01-01 BC', finished_at = '294276-12-31'"
    await connection.execute(f"UPDATE sessions SET {moments} WHERE id = $1", session)
    await project(connection, rules, ("session", session))
    assert await connection.fetchval("SELECT duration_ms FROM fact_session") > 9_000_000_000_000_000
