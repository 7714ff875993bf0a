"""The row-at-a-time baseline: a worker as most outboxes have one, in its plainest form.

It leases 500 rows by a status of their own, then takes them one by one: the statements that the row's kind needs, then
the settling of the row, each prepared beforehand and each a commit of its own. What it leaves out (isolating errors,
expiring leases, raising a turn's count after a late tool call, removing what a replayed event no longer gives) would
only make it slower.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from projector.sqlfile import load_sql

_LEASED = 500

# By source type, and for events by event type: which statements write the facts, in order.
_OF_SOURCES = {
    "session": ("session", "forget_configured", "configured_usage"),
    "llm_generation": ("llm_generation",),
    "usage_ledger": ("budget_posting",),
}
_OF_EVENTS = {
    "tool.completed": ("tool_call",),
    "turn.completed": ("turn",),
    "turn.failed": ("turn",),
    "turn.cancelled": ("turn",),
    "capability.usage": ("recorded_usage",),
    "output.message.replaced": ("guardrail_usage",),
}
_STATEMENTS = [path.stem for path in sorted((Path(__file__).parent / "baseline").glob("*.sql"))]


@dataclass(frozen=True, slots=True)
class RowAtATime:
    """One worker on one connection, its statements prepared."""

    statements: dict[str, "PreparedStatement[asyncpg.Record]"]

    @classmethod
    async def prepare(cls, connection: asyncpg.Connection) -> Self:
        """Prepares all statements, so that none is planned anew for a row."""
        return cls({name: await connection.prepare(load_sql(__file__, f"baseline/{name}.sql")) for name in _STATEMENTS})

    async def work(self, rows: int) -> None:
        """Projects and settles the first `rows` rows that are due."""
        left = rows
        while left > 0:
            leased = await self.statements["claim"].fetch(min(_LEASED, left))
            if not leased:
                raise RuntimeError(f"the outbox has {left} rows too few")
            for row in leased:
                await self.project(row["org_id"], row["source_type"], row["source_id"])
                await self._run("settle", row["id"])
            left -= len(leased)

    async def project(self, org_id: int, source_type: str, source_id: str) -> None:
        """Writes the facts of one row: reads what it is, then runs the upserts of its kind, each its own commit."""
        source = UUID(source_id)
        if source_type == "event":
            event = await self.statements["event"].fetchrow(org_id, source)
            names = _of_event(event) if event else ()
        else:
            names = _OF_SOURCES[source_type]
        for name in names:
            await self._run(name, org_id, source)

    async def _run(self, name: str, *arguments: Any) -> None:
        await self.statements[name].fetch(*arguments)


def _of_event(event: asyncpg.Record) -> tuple[str, ...]:
    names = _OF_EVENTS.get(event["event_type"], ())
    return (*names, "tool_usage") if event["event_type"] == "tool.completed" and event["has_capability"] else names
