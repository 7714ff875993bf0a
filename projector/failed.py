"""Rows that have failed: listing them, and making them pending again (contract: outbox.md, states)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from projector.database import Timeouts, operator_transaction
from projector.outbox import wake
from projector.sqlfile import load_sql

LATEST_FAILED = load_sql(__file__, "sql/latest_failed.sql")
REQUEUE_IDS = load_sql(__file__, "sql/requeue_ids.sql")
REQUEUE_DEAD = load_sql(__file__, "sql/requeue_dead.sql")
COUNT_FAILED_IDS = load_sql(__file__, "sql/count_failed_ids.sql")
COUNT_DEAD = load_sql(__file__, "sql/count_dead.sql")

Position = tuple[datetime, UUID]
"""Where in a list of failed rows to go on: updated_at and id of the last one seen."""

_SLICE = 1000
_BEFORE_ALL: Position = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
_AFTER_ALL: Position = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A failed row as it is shown; `next_attempt_at` is None for a dead letter: only an operator can requeue it."""

    id: UUID
    org_id: int
    source_type: str
    source_id: str
    source_version: str
    reason: str
    attempts: int
    last_error: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None

    @property
    def dead(self) -> bool:
        """Whether it is a dead letter."""
        return self.next_attempt_at is None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failed rows to requeue.

    Attributes:
        org_id: of one org; None for all.
        ids: these rows, dead letters or not; None for all dead letters.
        source_type: of dead letters; None for any.
    """

    org_id: int | None = None
    ids: Sequence[UUID] | None = None
    source_type: str | None = None


@dataclass(frozen=True, slots=True)
class Requeued:
    """How many rows were requeued, and whether the limit or time ended it before all were."""

    rows: int
    more: bool


async def latest_failed(
    connection: asyncpg.Connection, *, limit: int, org_id: int | None = None, dead: bool | None = None,
    source_type: str | None = None, after: Position | None = None,
) -> list[FailedRow]:  # fmt: skip
    """Failed rows, the latest failure first.

    Args:
        connection: inside a transaction or not.
        limit: the most rows.
        org_id: of one org; None for all.
        dead: dead letters alone, or none of them; None for both.
        source_type: None for any.
        after: where the page before ended.
    """
    records = await connection.fetch(LATEST_FAILED, org_id, dead, source_type, *(after or _AFTER_ALL), limit)
    return [FailedRow(**record) for record in records]


async def count_requeueable(connection: asyncpg.Connection, selection: Selection, limit: int) -> int:
    """How many rows `requeue` would requeue, counting no further than `limit`."""
    if selection.ids is not None:
        return min(int(await connection.fetchval(COUNT_FAILED_IDS, selection.ids, selection.org_id)), limit)
    return int(await connection.fetchval(COUNT_DEAD, selection.source_type, selection.org_id, limit))


async def requeue(
    connection: asyncpg.Connection, selection: Selection, *, limit: int, timeouts: Timeouts,
    is_late: Callable[[], bool] = lambda: False,
    record: Callable[[asyncpg.Connection, int], Awaitable[None]] | None = None,
) -> Requeued:  # fmt: skip
    """Makes failed rows pending and due again, with all attempts before them, slice by slice.

    Args:
        connection: not inside a transaction.
        selection: which rows.
        limit: the most rows.
        timeouts: of each slice's transaction.
        is_late: whether time is up.
        record: told inside each transaction how many rows were requeued so far.

    Raises:
        asyncpg.PostgresError, OSError: slices before stand.
    """
    rows, after = 0, _BEFORE_ALL
    while rows < limit and not is_late():
        async with operator_transaction(connection, timeouts):
            if selection.ids is not None:
                count = int(await connection.fetchval(REQUEUE_IDS, selection.ids, selection.org_id, limit))
                end = None
            else:
                size = min(_SLICE, limit - rows)
                end = await connection.fetchrow(REQUEUE_DEAD, selection.source_type, selection.org_id, size, *after)
                count = end["rows"] if end else 0
            if count:
                if record:
                    await record(connection, rows + count)
                await wake(connection)
        rows += count
        if end is None:
            break
        after = (end["updated_at"], end["id"])
    async with operator_transaction(connection, timeouts):
        more = await count_requeueable(connection, selection, 1) > 0
    return Requeued(rows, more=more)
