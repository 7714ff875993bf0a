"""Rows of the platform, written one by one: small helpers that tests build their stories from."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

EPOCH = datetime(2026, 5, 6, 10, 0, tzinfo=UTC)


async def add_org(connection: asyncpg.Connection, org_id: int = 1) -> int:
    """An organization."""
    await connection.execute(
        "INSERT INTO organizations (org_id, public_id, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        org_id, f"org_{org_id:032x}", f"Org {org_id}",
    )  # fmt: skip
    return org_id


async def add_named(connection: asyncpg.Connection, table: str, org_id: int, name: str) -> UUID:
    """An agent, harness, MCP server or skill."""
    row = uuid4()
    await connection.execute(f"INSERT INTO {table} (id, org_id, name) VALUES ($1, $2, $3)", row, org_id, name)
    return row


async def add_session(connection: asyncpg.Connection, org_id: int = 1, **columns: Any) -> UUID:
    """A session; columns given by name, `capabilities` as a Python value."""
    if "capabilities" in columns:
        columns["capabilities"] = json.dumps(columns["capabilities"])
    return await _insert(connection, "sessions", {"org_id": org_id, "owner_principal_id": uuid4(), **columns})


async def add_event(
    connection: asyncpg.Connection,
    session: UUID,
    event_type: str,
    data: Any = None,
    context: Any = None,
    **columns: Any,
) -> UUID:
    """An event; `data` and `context` are JSON text or Python values."""
    sequence = await connection.fetchval(
        "SELECT COALESCE(max(sequence), 0) + 1 FROM events WHERE session_id = $1", session
    )
    row = {
        "session_id": session, "sequence": sequence, "event_type": event_type, "data": _json(data),
        "context": _json(context), **columns,
    }  # fmt: skip
    return await _insert(connection, "events", row)


async def add_generation(connection: asyncpg.Connection, org_id: int = 1, **columns: Any) -> UUID:
    """An LLM generation."""
    return await _insert(connection, "llm_generations", {"org_id": org_id, **columns})


async def add_posting(connection: asyncpg.Connection, org_id: int = 1, **columns: Any) -> UUID:
    """A row of the usage ledger."""
    defaults = {"currency": "USD", "amount": 1.5, "meter_source": "llm"}
    return await _insert(connection, "usage_ledger", {"org_id": org_id, **defaults, **columns})


async def enqueue(
    connection: asyncpg.Connection, source_type: str, source: UUID | str, org_id: int = 1, version: str | None = None
) -> UUID:
    """An outbox row, due now; gives its id."""
    row: UUID = await connection.fetchval(
        "INSERT INTO reporting_outbox (org_id, source_type, source_id, source_version, reason)"
        " VALUES ($1, $2, $3, $4, $5) RETURNING id",
        org_id, source_type, str(source), version if version is not None else uuid4().hex, "test",
    )  # fmt: skip
    return row


async def enqueue_generations(connection: asyncpg.Connection, rows: int, org_id: int = 1) -> list[UUID]:
    """So many LLM generations of an org, with an outbox row each; gives these rows."""
    await add_org(connection, org_id)
    return [
        await enqueue(connection, "llm_generation", await add_generation(connection, org_id), org_id)
        for _ in range(rows)
    ]


async def facts(connection: asyncpg.Connection, table: str) -> list[asyncpg.Record]:
    """All facts of a table, by key."""
    return await connection.fetch(f"SELECT * FROM {table} ORDER BY org_id, source_key")


async def outbox_row(connection: asyncpg.Connection, row: UUID) -> asyncpg.Record:
    """An outbox row as it is now."""
    (record,) = await connection.fetch("SELECT * FROM reporting_outbox WHERE id = $1", row)
    return record


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps({} if value is None else value)


async def _insert(connection: asyncpg.Connection, table: str, row: dict[str, Any]) -> UUID:
    names = ", ".join(row)
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    inserted: UUID = await connection.fetchval(
        f"INSERT INTO {table} ({names}) VALUES ({values}) RETURNING id", *row.values()
    )
    return inserted
