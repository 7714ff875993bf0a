"""What the gauges and `projector status` show: the outbox in numbers, and how fresh the datasets are.

Nothing here counts a whole table: what waits is counted in partial indexes, what is completed is estimated once the
table is large, and freshness is one index probe for each org.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from projector.registry import Table
from projector.sqlfile import load_sql

BACKLOG = load_sql(__file__, "sql/backlog.sql")
COMPLETED = load_sql(__file__, "sql/completed.sql")
FRESHNESS = load_sql(__file__, "sql/freshness.sql")
LATEST_FAILED = load_sql(__file__, "sql/latest_failed.sql")

STATUSES = ("pending", "processing", "failed", "dead", "completed")


@dataclass(frozen=True, slots=True)
class OutboxState:
    """The outbox at one moment of the database's clock.

    Attributes:
        at: that moment.
        rows: counts by status; `dead` apart from `failed`.
        completed_estimated: whether the count of completed rows is an estimate.
        by_source_type: counts by source type and status, of what is not completed.
        lag_seconds: age of the oldest due row, by source type; only types that have one.
        oldest_due_at: since when the oldest due row could have been claimed.
    """

    at: datetime
    rows: dict[str, int]
    completed_estimated: bool
    by_source_type: dict[str, dict[str, int]]
    lag_seconds: dict[str, float]
    oldest_due_at: datetime | None

    @property
    def lag(self) -> float:
        """Age of the oldest due row, in seconds; 0 where none is due."""
        return max(self.lag_seconds.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A failed row as it is shown; `dead` where only an operator can requeue it."""

    id: UUID
    org_id: int
    source_type: str
    source_id: str
    attempts: int
    last_error: str | None
    updated_at: datetime
    dead: bool


async def read_outbox(connection: asyncpg.Connection) -> OutboxState:
    """Counts the outbox. Costs what waits in it, not what is completed."""
    at = await connection.fetchval("SELECT now()")
    rows = dict.fromkeys(STATUSES, 0)
    by_source_type: dict[str, dict[str, int]] = {}
    oldest: dict[str, datetime] = {}
    for record in await connection.fetch(BACKLOG):
        source_type, status = record["source_type"], record["status"]
        rows[status] += record["rows"]
        by_source_type.setdefault(source_type, {})[status] = record["rows"]
        if record["oldest_due_at"] is not None:
            oldest[source_type] = min(record["oldest_due_at"], oldest.get(source_type, record["oldest_due_at"]))
    (completed,) = await connection.fetch(COMPLETED, sum(rows.values()))
    rows["completed"] = completed["rows"]
    return OutboxState(
        at=at,
        rows=rows,
        completed_estimated=completed["estimated"],
        by_source_type=by_source_type,
        lag_seconds={name: max((at - since).total_seconds(), 0.0) for name, since in oldest.items()},
        oldest_due_at=min(oldest.values(), default=None),
    )


async def read_freshness(connection: asyncpg.Connection, tables: Iterable[Table]) -> dict[str, datetime]:
    """When each dataset last gained a fact; datasets without facts are left out."""
    latest: dict[str, datetime] = {}
    for table in tables:
        at = await connection.fetchval(FRESHNESS.format(table=table.name))
        if at is not None:
            latest[table.dataset] = at
    return latest


async def read_latest_failed(connection: asyncpg.Connection, limit: int) -> list[FailedRow]:
    """The latest failed rows, newest first."""
    return [FailedRow(*record) for record in await connection.fetch(LATEST_FAILED, limit)]
