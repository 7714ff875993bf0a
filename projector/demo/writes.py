"""The platform's write path: each source together with its outbox row, and the count of what was committed."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import Final, TypeAlias
from uuid import UUID

from projector.demo.seed import CURRENCY, Connection, Org
from projector.sqlfile import load_sql

Json: TypeAlias = dict[str, object]


_SESSION: Final = load_sql(__file__, "write_session.sql")
_SESSION_USAGE: Final = load_sql(__file__, "add_session_usage.sql")
_SESSION_STATUS: Final = load_sql(__file__, "set_session_status.sql")
_EVENTS: Final = load_sql(__file__, "write_events.sql")
_GENERATION: Final = load_sql(__file__, "write_generation.sql")
_LATE_USAGE: Final = load_sql(__file__, "write_late_usage.sql")
_LEDGER: Final = load_sql(__file__, "write_ledger_entry.sql")


@dataclass(slots=True)
class TrafficCounts:
    """How many rows were committed, by table. Session rows in the outbox outnumber `sessions`: one for each state."""

    sessions: int = 0
    events: int = 0
    llm_generations: int = 0
    ledger_entries: int = 0
    outbox_rows: int = 0

    def add(self, other: "TrafficCounts") -> None:
        """Add the counts of `other`."""
        for counted in fields(self):
            setattr(self, counted.name, getattr(self, counted.name) + getattr(other, counted.name))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one generation or of several, the four kinds apart."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(mine + theirs for mine, theirs in zip(self.tokens(), other.tokens(), strict=True)))

    def tokens(self) -> tuple[int, int, int, int]:
        """Input, output, cache read, cache creation: the order of every statement's parameters."""
        return self.input_tokens, self.output_tokens, self.cache_read_tokens, self.cache_creation_tokens


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a session belongs to and what runs it: the dimensions that its ledger entries repeat."""

    org: Org
    principal_id: UUID | None = None
    user_id: UUID | None = None
    agent_id: UUID | None = None
    harness_id: UUID | None = None
    app_id: UUID | None = None
    blueprint_id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event that is still to be written."""

    event_type: str
    data: Json = field(default_factory=dict)
    context: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Generation:
    """An LLM generation that is still to be written; `duration_ms` in milliseconds."""

    model: str
    provider: str
    finish_reason: str
    usage: Usage
    duration_ms: int | None
    turn_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """A ledger entry that is still to be written; a positive `amount`, in US dollars, is a debit."""

    amount: float
    meter_source: str
    ref_type: str | None
    budget_id: UUID | None


@dataclass(slots=True)
class UnitOfWork:
    """The writes of one transaction. They count only in `written`, until the transaction has committed."""

    connection: Connection
    written: TrafficCounts = field(default_factory=TrafficCounts)

    async def session(self, owner: Owner, capabilities: Sequence[object]) -> UUID:
        """Create a session; returns its id."""
        row = await self.connection.fetchrow(
            _SESSION,
            owner.org.org_id,
            owner.principal_id,
            owner.user_id,
            owner.agent_id,
            owner.harness_id,
            owner.app_id,
            owner.blueprint_id,
            json.dumps(capabilities),
        )
        assert row is not None
        self.written.sessions += 1
        self.written.outbox_rows += row["enqueued"]
        session_id: UUID = row["id"]
        return session_id

    async def session_usage(self, session_id: UUID, usage: Usage) -> None:
        """Add `usage` to the session's totals."""
        self.written.outbox_rows += await self.connection.fetchval(_SESSION_USAGE, session_id, *usage.tokens())

    async def session_status(self, session_id: UUID, status: str, *, ends: bool = False) -> None:
        """Move the session to `status`, which no outbox row tells of."""
        await self.connection.execute(_SESSION_STATUS, session_id, status, ends)

    async def events(self, org_id: int, session_id: UUID, first: int, events: Sequence[Event]) -> list[UUID]:
        """Append events with sequences from `first` on; returns their ids."""
        rows = await self.connection.fetch(
            _EVENTS,
            org_id,
            session_id,
            first,
            [event.event_type for event in events],
            [json.dumps(event.data) for event in events],
            [json.dumps(event.context) for event in events],
        )
        self.written.events += len(rows)
        self.written.outbox_rows += sum(row["enqueued"] for row in rows)
        return [row["id"] for row in rows]

    async def generation(self, org_id: int, session_id: UUID | None, event_id: UUID | None, made: Generation) -> UUID:
        """Record a generation, with or without a session; returns its id."""
        row = await self.connection.fetchrow(
            _GENERATION,
            org_id,
            session_id,
            made.turn_id,
            event_id,
            made.model,
            made.provider,
            made.finish_reason,
            *made.usage.tokens(),
            made.duration_ms,
        )
        assert row is not None
        self.written.llm_generations += 1
        self.written.outbox_rows += row["enqueued"]
        generation_id: UUID = row["id"]
        return generation_id

    async def late_usage(self, generation_id: UUID, usage: Usage) -> None:
        """Fill in the usage of a generation that was written without."""
        self.written.outbox_rows += await self.connection.fetchval(_LATE_USAGE, generation_id, *usage.tokens())

    async def posting(self, owner: Owner, session_id: UUID | None, posting: Posting) -> None:
        """Post a debit or a credit to the usage ledger."""
        self.written.outbox_rows += await self.connection.fetchval(
            _LEDGER,
            owner.org.org_id,
            posting.budget_id,
            session_id,
            owner.user_id,
            owner.principal_id,
            owner.agent_id,
            owner.harness_id,
            CURRENCY,
            posting.amount,
            posting.meter_source,
            posting.ref_type,
        )
        self.written.ledger_entries += 1


@asynccontextmanager
async def unit_of_work(connection: Connection, counts: TrafficCounts) -> AsyncIterator[UnitOfWork]:
    """One transaction; `counts` grows by its writes once they are committed, and by nothing if it fails."""
    unit = UnitOfWork(connection)
    async with connection.transaction():
        yield unit
    counts.add(unit.written)
