"""The outbox: claim, settle, requeue (contract: outbox.md). Only these functions write to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from projector.sqlfile import load_sql
from schemas.outbox import NOTIFY_CHANNEL

CLAIM = load_sql(__file__, "sql/claim.sql")
COMPLETE = load_sql(__file__, "sql/complete.sql")
FAIL = load_sql(__file__, "sql/fail.sql")
POSTPONE = load_sql(__file__, "sql/postpone.sql")
RELEASE = load_sql(__file__, "sql/release.sql")
REQUEUE_IDS = load_sql(__file__, "sql/requeue_ids.sql")
REQUEUE_DEAD = load_sql(__file__, "sql/requeue_dead.sql")
COUNT_FAILED_IDS = load_sql(__file__, "sql/count_failed_ids.sql")
COUNT_DEAD = load_sql(__file__, "sql/count_dead.sql")
COUNT_DUE = load_sql(__file__, "sql/count_due.sql")

_SLICE = 1000


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """A row that this transaction holds."""

    id: UUID
    org_id: int
    source_type: str
    source_id: str
    attempts: int
    is_uuid: bool


@dataclass(frozen=True, slots=True)
class Delays:
    """Completed rows of one source type whose delays fall into one bucket; `seconds` is their sum."""

    source_type: str
    bucket: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FailedOutcome:
    """A row that was settled as failed; `dead` where its attempts are used up."""

    id: UUID
    org_id: int
    source_type: str
    attempts: int
    dead: bool


async def claim(connection: asyncpg.Connection, limit: int) -> list[ClaimedRow]:
    """Claims up to `limit` due rows, oldest first. The locks are the lease: they end with the transaction."""
    return [ClaimedRow(*record) for record in await connection.fetch(CLAIM, limit)]


async def complete(connection: asyncpg.Connection, ids: Sequence[UUID], bounds: Sequence[float]) -> list[Delays]:
    """Settles rows as completed, and tells how long they took, by bucket of `bounds` (ascending, seconds)."""
    return [Delays(*record) for record in await connection.fetch(COMPLETE, ids, bounds)]


async def fail(
    connection: asyncpg.Connection, errors: Sequence[tuple[UUID, str]], max_attempts: int
) -> list[FailedOutcome]:
    """Settles rows as failed, each with its error: due again after a backoff, or dead after `max_attempts`."""
    records = await connection.fetch(FAIL, [row for row, _ in errors], [error for _, error in errors], max_attempts)
    return [
        FailedOutcome(record["id"], record["org_id"], record["source_type"], record["attempts"], record["dead"])
        for record in records
    ]


async def postpone(connection: asyncpg.Connection, ids: Sequence[UUID], error: str, seconds: float) -> None:
    """Puts rows off for some seconds without using up an attempt."""
    await connection.execute(POSTPONE, ids, error, seconds)


async def release_expired(connection: asyncpg.Connection) -> int:
    """Releases rows that other programs leased more than 15 minutes ago; gives how many."""
    return int(await connection.fetchval(RELEASE, _SLICE))


async def count_due(connection: asyncpg.Connection) -> int:
    """How many rows could be claimed now. Costs what it counts."""
    return int(await connection.fetchval(COUNT_DUE))


async def requeue_ids(connection: asyncpg.Connection, ids: Sequence[UUID], *, dry_run: bool) -> int:
    """Requeues those of the given rows that have failed; gives how many (with `dry_run`: how many it would)."""
    if dry_run:
        return int(await connection.fetchval(COUNT_FAILED_IDS, ids))
    requeued = int(await connection.fetchval(REQUEUE_IDS, ids))
    await wake(connection)
    return requeued


async def requeue_dead(connection: asyncpg.Connection, source_type: str | None, *, dry_run: bool) -> int:
    """Requeues the dead letters of one source type, or all, in slices; gives how many (or how many it would)."""
    if dry_run:
        return int(await connection.fetchval(COUNT_DEAD, source_type))
    total = 0
    while requeued := int(await connection.fetchval(REQUEUE_DEAD, source_type, _SLICE)):
        total += requeued
        await wake(connection)
    return total


async def wake(connection: asyncpg.Connection) -> None:
    """Wakes projectors that listen. A hint: they would find the rows by polling too."""
    await connection.execute("SELECT pg_notify($1, '')", NOTIFY_CHANNEL)
