"""Histories of sources, made of steps: what the application may write, and what it enqueues for that."""

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from tests.oracle import FACT_COLUMNS
from tests.platform_rows import add_event, add_generation, add_posting, add_session
from tests.scenes import Cast, Source

# As the application enqueues (contract: outbox.md): what is completed becomes pending again, what waits stays.
_ENQUEUE = """
INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)
VALUES ($1, $2, $3, $4, 'history')
ON CONFLICT (org_id, source_type, source_id, source_version, reason) DO UPDATE
SET status = 'pending', next_attempt_at = now(), updated_at = now()
WHERE reporting_outbox.status IN ('completed', 'failed')
"""
_TABLES = {
    "session": "sessions", "event": "events", "llm_generation": "llm_generations", "usage_ledger": "usage_ledger",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction of the application.

    Attributes:
        kind: which; the name of a method of `History`.
        org_id: whose source it is.
        pick: chooses among the rows that are there.
        foreign: whether what the source refers to is the other org's.
        document: a JSON value that the source has.
        versions: of the outbox rows of each source that gives other facts now.
        late: whether these are only enqueued when other steps have passed.
    """

    kind: str
    org_id: int
    pick: int
    foreign: bool
    document: Any
    versions: tuple[int, ...]
    late: bool


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps, and workers beside them: each by the size of its batches. All is projected at its end."""

    steps: list[Step]
    workers: list[int]


@dataclass
class History:
    """What was written so far. The methods write; each gives the sources that give other facts from then on."""

    connection: asyncpg.Connection
    casts: dict[int, Cast]
    orgs: dict[Source, int] = field(default_factory=dict)
    gone: set[Source] = field(default_factory=set)
    had_facts: set[str] = field(default_factory=set)
    waiting: list[tuple[Source, int, int]] = field(default_factory=list)

    async def play(self, step: Step) -> None:
        """Plays one step, and enqueues what it calls for in the same transaction or later."""
        play: Callable[[Step], Awaitable[list[Source]]] = getattr(self, step.kind)
        async with self.connection.transaction():
            rows = [(source, self.orgs[source], version) for source in await play(step) for version in step.versions]
            if not step.late:
                await self._enqueue(rows)
        if step.late:
            self.waiting += rows

    async def enqueue_waiting(self) -> None:
        """Enqueues what was put off, in another order."""
        random.shuffle(self.waiting)
        await self._enqueue(self.waiting)
        self.waiting = []

    async def _enqueue(self, rows: list[tuple[Source, int, int]]) -> None:
        for (source_type, source), org_id, version in rows:
            await self.connection.execute(_ENQUEUE, org_id, source_type, str(source), str(version))

    def is_gone(self, source_key: str) -> bool:
        """Whether a fact's source was there and is not any more."""
        source_type, source, *_ = source_key.split(":")
        return (source_type, UUID(source)) in self.gone

    def _there(self) -> list[Source]:
        return [source for source in self.orgs if source not in self.gone]

    def _of(self, source_type: str) -> list[UUID]:
        return [source for its_type, source in self._there() if its_type == source_type]

    def _pick(self, step: Step, source_type: str) -> UUID | None:
        sources = self._of(source_type)
        return sources[step.pick % len(sources)] if sources else None

    def _cast(self, step: Step) -> Cast:
        return self.casts[3 - step.org_id if step.foreign else step.org_id]

    def _added(self, source_type: str, source: UUID, org_id: int) -> Source:
        self.orgs[source_type, source] = org_id
        return source_type, source

    async def add_session(self, step: Step) -> list[Source]:
        cast = self._cast(step)
        names = [f"mcp:{cast.mcp_server}", f"skill:{cast.skill}", "declarative:notes-1", "declarative:notes-2"]
        capabilities = step.document if step.pick % 2 else [*names[: step.pick % 5], step.document]
        session = await add_session(
            self.connection, step.org_id, agent_id=cast.agent, harness_id=cast.harness, app_id=uuid4(),
            capabilities=capabilities,
        )  # fmt: skip
        return [self._added("session", session, step.org_id)]

    async def change_session(self, step: Step) -> list[Source]:
        session = self._pick(step, "session")
        await self.connection.execute(
            "UPDATE sessions SET status = $2, capabilities = $3, total_input_tokens = total_input_tokens + 1"
            " WHERE id = $1",
            session, f"status {step.pick}", json.dumps(step.document),
        )  # fmt: skip
        return [("session", session)] if session else []

    async def call_tool(self, step: Step) -> list[Source]:
        return await self._add_event(step, ["tool.completed"])

    async def end_turn(self, step: Step) -> list[Source]:
        return await self._add_event(step, ["turn.completed", "turn.failed", "turn.cancelled"])

    async def use_capability(self, step: Step) -> list[Source]:
        return await self._add_event(step, ["capability.usage", "output.message.replaced"])

    async def add_any_event(self, step: Step) -> list[Source]:
        return await self._add_event(step, ["tool.completed", "turn.failed", "capability.usage", "turn.sealed"])

    async def _add_event(self, step: Step, kinds: list[str]) -> list[Source]:
        session = self._pick(step, "session")
        if session is None:
            return []
        event = await add_event(self.connection, session, kinds[step.pick % len(kinds)], json.dumps(step.document))
        # Its session counts it. Its turn is not enqueued: a late tool call raises that by itself.
        return [self._added("event", event, self.orgs["session", session]), ("session", session)]

    async def add_generation(self, step: Step) -> list[Source]:
        session = self._pick(step, "session") if step.pick % 3 else None
        generation = await add_generation(self.connection, step.org_id, session_id=session, input_tokens=step.pick)
        return [self._added("llm_generation", generation, step.org_id)]

    async def report_late_usage(self, step: Step) -> list[Source]:
        generation = self._pick(step, "llm_generation")
        await self.connection.execute(
            "UPDATE llm_generations SET output_tokens = output_tokens + 1 WHERE id = $1", generation
        )
        return [("llm_generation", generation)] if generation else []

    async def add_posting(self, step: Step) -> list[Source]:
        cast = self._cast(step)
        posting = await add_posting(
            self.connection, step.org_id, session_id=self._pick(step, "session"), agent_id=cast.agent,
            harness_id=cast.harness, budget_id=cast.budget, amount=step.pick - 20,
        )  # fmt: skip
        return [self._added("usage_ledger", posting, step.org_id)]

    async def rename(self, step: Step) -> list[Source]:
        await self.connection.execute("UPDATE agents SET name = $2 WHERE org_id = $1", step.org_id, f"Ada {step.pick}")
        await self.connection.execute("UPDATE skills SET name = $2 WHERE org_id = $1", step.org_id, f"S {step.pick}")
        return self._there()

    async def configure_agent(self, step: Step) -> list[Source]:
        agent = self.casts[step.org_id].agent
        await self.connection.execute("DELETE FROM agent_capabilities WHERE agent_id = $1", agent)
        await self.connection.execute("INSERT INTO agent_capabilities VALUES ($1, $2)", agent, f"c{step.pick % 3}")
        return [("session", session) for session in self._of("session")]

    async def delete(self, step: Step) -> list[Source]:
        source_type = ("event", "llm_generation", "usage_ledger")[step.pick % 3]
        source = self._pick(step, source_type)
        if source is None:
            return []
        session = await self.connection.fetchval("SELECT session_id FROM events WHERE id = $1", source)
        await self.connection.execute(f"DELETE FROM {_TABLES[source_type]} WHERE id = $1", source)
        gone = await self._forget_gone()
        # Turns of the same session may have lost a tool call.
        left = await self.connection.fetch("SELECT id FROM events WHERE session_id = $1", session)
        return [*gone, *(("event", record["id"]) for record in left)]

    async def delete_session(self, step: Step) -> list[Source]:
        session = self._pick(step, "session")
        await self.connection.execute("DELETE FROM sessions WHERE id = $1", session)
        return [*await self._forget_gone(), *(("usage_ledger", posting) for posting in self._of("usage_ledger"))]

    async def _forget_gone(self) -> list[Source]:
        left = {
            row["id"] for table in _TABLES.values() for row in await self.connection.fetch(f"SELECT id FROM {table}")
        }
        gone = [source for source in self._there() if source[1] not in left]
        self.gone.update(gone)
        keys = [f"{source_type}:{source}" for source_type, source in gone]
        for table in FACT_COLUMNS.keys() - {"fact_capability_usage"}:  # a fact there may be stale, and be removed
            facts = await self.connection.fetch(f"SELECT source_key FROM {table} WHERE source_key = ANY ($1)", keys)
            self.had_facts.update(fact["source_key"] for fact in facts)
        return gone

    async def enqueue_for_the_other_org(self, step: Step) -> list[Source]:
        for source in list(self.orgs)[step.pick % 7 :: 3]:
            await self._enqueue([(source, 3 - self.orgs[source], version) for version in step.versions])
        return []
