"""Leases: rows that a relay has published; who reads the messages will claim them (contract: outbox.md, states)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from projector.outbox import Tid
from projector.sqlfile import load_sql

LEASE = load_sql(__file__, "sql/lease.sql")
RELEASE_IDS = load_sql(__file__, "sql/release_ids.sql")
COUNT_LEASED = load_sql(__file__, "sql/count_leased.sql")


@dataclass(frozen=True, slots=True)
class Lease:
    """A leased row: its id, and its message's key and value, JSON of schemas/messages.py."""

    id: UUID
    key: str
    value: str


async def lease(connection: asyncpg.Connection, tids: Sequence[Tid]) -> list[Lease]:
    """Leases rows that this transaction holds; they come back by themselves after 15 minutes."""
    return [Lease(*record) for record in await connection.fetch(LEASE, tids)]


async def release(connection: asyncpg.Connection, ids: Sequence[UUID]) -> int:
    """Makes leased rows pending again at once; gives how many were still leased. No row loses an attempt."""
    return int(await connection.fetchval(RELEASE_IDS, ids))


async def count_leased(connection: asyncpg.Connection, limit: int) -> int:
    """How many rows are leased, counted up to a limit."""
    return int(await connection.fetchval(COUNT_LEASED, limit))
