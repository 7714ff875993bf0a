"""Scenes: for each source type, how sources of it are written, how they change, and how they go.

The promises are tested over the scenes of every projection there is. A new projection adds its own to `SCENES`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

from projector.batch import BatchResult, BatchRules, run_batch
from tests.oracle import Facts, differences, expected_facts, read_facts, read_sources
from tests.platform_rows import (
    add_event,
    add_generation,
    add_named,
    add_org,
    add_posting,
    add_session,
    enqueue,
)

Source = tuple[str, UUID]
"""A source type and an id."""

TURN = f"turn_{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Cast:
    """The rows that sources refer to, and the org that the sources themselves are written to."""

    org_id: int
    agent: UUID
    harness: UUID
    budget: UUID
    mcp_server: UUID
    skill: UUID


@dataclass(frozen=True, slots=True)
class Scene:
    """A source and what may happen to it.

    Attributes:
        name: tells it apart among those of its source type.
        source_type: of its outbox row.
        tables: where it gives facts; in the first of them, whatever else it is changed to.
        write: writes the source with the rows it refers to; gives its id.
        change: makes it give other facts; gives the source to enqueue for that.
        delete_from: the table whose row is deleted where the source goes.
    """

    name: str
    source_type: str
    tables: tuple[str, ...]
    write: Callable[[asyncpg.Connection, Cast], Awaitable[UUID]]
    change: Callable[[asyncpg.Connection, Cast, UUID], Awaitable[Source]]
    delete_from: str

    def __str__(self) -> str:
        return f"{self.source_type}: {self.name}"

    async def delete(self, connection: asyncpg.Connection, source: UUID) -> None:
        """Deletes the source."""
        assert await connection.execute(f"DELETE FROM {self.delete_from} WHERE id = $1", source) == "DELETE 1"


async def add_cast(connection: asyncpg.Connection, org_id: int = 1) -> Cast:
    """An org with all that sources may refer to; every name tells the org."""
    await add_org(connection, org_id)
    agent = await add_named(connection, "agents", org_id, f"agent of {org_id}")
    harness = await add_named(connection, "harnesses", org_id, f"harness of {org_id}")
    await connection.execute("INSERT INTO agent_capabilities VALUES ($1, 'web')", agent)
    await connection.execute("INSERT INTO harness_capabilities VALUES ($1, 'shell')", harness)
    await connection.execute(
        "INSERT INTO declarative_capabilities VALUES ($1, $2, $3)", org_id, f"notes-{org_id}", f"notes of {org_id}"
    )
    budget = await connection.fetchval(
        "INSERT INTO budgets (org_id, subject_type, subject_id, currency) VALUES ($1, 'org', $2, 'USD') RETURNING id",
        org_id, f"subject of {org_id}",
    )  # fmt: skip
    mcp_server = await add_named(connection, "mcp_servers", org_id, f"server of {org_id}")
    skill = await add_named(connection, "skills", org_id, f"skill of {org_id}")
    return Cast(org_id, agent, harness, budget, mcp_server, skill)


async def write_session(connection: asyncpg.Connection, cast: Cast) -> UUID:
    """A session that has agent and harness, and capabilities of its own of all kinds."""
    named = [f"mcp:{cast.mcp_server}", f"skill:{cast.skill}", *(f"declarative:notes-{org_id}" for org_id in (1, 2))]
    return await add_session(
        connection, cast.org_id, agent_id=cast.agent, harness_id=cast.harness, app_id=uuid4(), blueprint_id="blue",
        resolved_owner_user_id=uuid4(), capabilities=["files", *({"ref": name} for name in named)],
    )  # fmt: skip


def _event(event_type: str, **data: object) -> Callable[[asyncpg.Connection, Cast], Awaitable[UUID]]:
    async def write(connection: asyncpg.Connection, cast: Cast) -> UUID:
        return await add_event(connection, await write_session(connection, cast), event_type, data)

    return write


async def _write_generation(connection: asyncpg.Connection, cast: Cast) -> UUID:
    session = await write_session(connection, cast)
    return await add_generation(connection, cast.org_id, session_id=session, model="large", input_tokens=5)


async def _write_background_generation(connection: asyncpg.Connection, cast: Cast) -> UUID:
    return await add_generation(connection, cast.org_id, model="small", input_tokens=5)


async def _write_posting(connection: asyncpg.Connection, cast: Cast) -> UUID:
    return await add_posting(
        connection, cast.org_id, session_id=await write_session(connection, cast), budget_id=cast.budget,
        agent_id=cast.agent, harness_id=cast.harness,
    )  # fmt: skip


def _rename_agent(source_type: str) -> Callable[[asyncpg.Connection, Cast, UUID], Awaitable[Source]]:
    """What is itself append-only still follows the names of what it refers to."""

    async def change(connection: asyncpg.Connection, cast: Cast, source: UUID) -> Source:
        await connection.execute("UPDATE agents SET name = name || ', renamed' WHERE id = $1", cast.agent)
        return source_type, source

    return change


async def _call_tool_late(connection: asyncpg.Connection, _: Cast, source: UUID) -> Source:
    session = await connection.fetchval("SELECT session_id FROM events WHERE id = $1", source)
    return "event", await add_event(connection, session, "tool.completed", {"tool_name": "late"}, {"turn_id": TURN})


async def _change_session(connection: asyncpg.Connection, _: Cast, source: UUID) -> Source:
    await connection.execute(
        "UPDATE sessions SET status = status || '+', total_input_tokens = total_input_tokens + 7,"
        """ capabilities = '["files", {"ref": "browser"}]', turn_count = turn_count + 1 WHERE id = $1""",
        source,
    )
    return "session", source


async def _report_late_usage(connection: asyncpg.Connection, _: Cast, source: UUID) -> Source:
    await connection.execute("UPDATE llm_generations SET input_tokens = input_tokens + 7 WHERE id = $1", source)
    return "llm_generation", source


_RECORDS = [
    {"capability_id": "web", "usage_kind": "configured", "usage_count": 2},
    {"capability_id": "shell", "usage_kind": "exposed"},
]
_USAGE = "fact_capability_usage"

SCENES: tuple[Scene, ...] = (
    Scene(
        "tool call", "event", ("fact_tool_call", _USAGE),
        _event("tool.completed", tool_name="search", success=True, capability_id="web", turn_id=TURN),
        _rename_agent("event"), "events",
    ),
    Scene(
        "tool call without capability", "event", ("fact_tool_call",), _event("tool.completed", tool_name="read"),
        _rename_agent("event"), "events",
    ),
    Scene(
        "turn", "event", ("fact_turn",), _event("turn.completed", turn_id=TURN, duration_ms=3), _call_tool_late,
        "events",
    ),
    Scene(
        "records", "event", (_USAGE,), _event("capability.usage", records=_RECORDS), _rename_agent("event"), "events",
    ),
    Scene(
        "guardrail", "event", (_USAGE,), _event("output.message.replaced", guardrail_capability_id="guard"),
        _rename_agent("event"), "events",
    ),
    Scene("session", "session", ("fact_session", _USAGE), write_session, _change_session, "sessions"),
    Scene(
        "in a session", "llm_generation", ("fact_llm_generation",), _write_generation, _report_late_usage,
        "llm_generations",
    ),
    Scene(
        "in the background", "llm_generation", ("fact_llm_generation",), _write_background_generation,
        _report_late_usage, "llm_generations",
    ),
    Scene(
        "posting", "usage_ledger", ("fact_budget_posting",), _write_posting, _rename_agent("usage_ledger"),
        "usage_ledger",
    ),
)  # fmt: skip


def scenes_of(source_type: str) -> list[Scene]:
    """The scenes of one source type.

    Raises:
        LookupError: there is none: a projection that no promise is tested with.
    """
    found = [scene for scene in SCENES if scene.source_type == source_type]
    if not found:
        raise LookupError(f"no scene for the source type {source_type!r}: add one to tests/scenes.py")
    return found


async def project(connection: asyncpg.Connection, rules: BatchRules, *sources: Source, org_id: int = 1) -> BatchResult:
    """Enqueues sources and runs one batch, which must complete them all."""
    for source_type, source in sources:
        await enqueue(connection, source_type, source, org_id)
    result = await run_batch(connection, rules, 10_000)
    assert not result.failed, result.failed
    assert not result.postponed, result.postponed
    assert result.completed_rows == result.claimed == len(sources), result.completed
    return result


async def assert_facts_follow(connection: asyncpg.Connection, *sources: Source) -> None:
    """The facts of some sources, or of all there are, are what these give as they are now: none missing, none else."""
    expected = _only(sources, expected_facts(await read_sources(connection)))
    wrong = differences(expected, _only(sources, await read_facts(connection)))
    assert not wrong, "\n".join(wrong)


def _only(sources: tuple[Source, ...], facts: Facts) -> Facts:
    prefixes = tuple(f"{source_type}:{source}" for source_type, source in sources)
    return {
        table: {key: fact for key, fact in rows.items() if not prefixes or key[1].startswith(prefixes)}
        for table, rows in facts.items()
    }


async def count_facts(connection: asyncpg.Connection) -> dict[str, int]:
    """How many facts there are, by table; tables without any are left out."""
    return {table: len(facts) for table, facts in (await read_facts(connection)).items() if facts}
