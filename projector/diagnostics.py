"""What the gauges and `projector status` show: the outbox in numbers, and how fresh the datasets are.

Nothing here counts a whole table: what waits is counted in partial indexes, what is completed is estimated once the
table is large, and freshness is one index probe for each org.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from projector.registry import Table
from projector.sqlfile import load_sql

BACKLOG = load_sql(__file__, "sql/backlog.sql")
COMPLETED = load_sql(__file__, "sql/completed.sql")
FRESHNESS = load_sql(__file__, "sql/freshness.sql")
BACKLOG_ORG = load_sql(__file__, "sql/backlog_org.sql")
COMPLETED_ORG = load_sql(__file__, "sql/completed_org.sql")
FRESHNESS_ORG = load_sql(__file__, "sql/freshness_org.sql")

_MOST_COUNTED = 100_000

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
        oldest_pending_at: when the oldest pending row was created.
    """

    at: datetime
    rows: dict[str, int]
    completed_estimated: bool
    by_source_type: dict[str, dict[str, int]]
    lag_seconds: dict[str, float]
    oldest_pending_at: datetime | None

    @property
    def lag(self) -> float:
        """Age of the oldest due row, in seconds; 0 where none is due."""
        return max(self.lag_seconds.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """The outbox of one org in numbers; `failed` with its dead letters; `completed` is an estimate beyond 100,000."""

    pending: int
    processing: int
    failed: int
    completed: int
    oldest_pending_at: datetime | None


async def read_outbox(connection: asyncpg.Connection) -> OutboxState:
    """Counts the outbox. Costs what waits in it, not what is completed."""
    at = await connection.fetchval("SELECT now()")
    rows = dict.fromkeys(STATUSES, 0)
    by_source_type: dict[str, dict[str, int]] = {}
    oldest: dict[str, datetime] = {}
    pending_since = []
    for record in await connection.fetch(BACKLOG):
        source_type, status = record["source_type"], record["status"]
        rows[status] += record["rows"]
        by_source_type.setdefault(source_type, {})[status] = record["rows"]
        if status == "pending":
            pending_since.append(record["created_at"])
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
        oldest_pending_at=min(pending_since, default=None),
    )


async def read_outbox_of_org(connection: asyncpg.Connection, org_id: int) -> OutboxCounts:
    """Counts the outbox of one org. Costs what the org has waiting in it, and at most 100,000 completed rows."""
    (waiting,) = await connection.fetch(BACKLOG_ORG, org_id)
    others = waiting["pending"] + waiting["processing"] + waiting["failed"]
    completed = await connection.fetchval(COMPLETED_ORG, org_id, _MOST_COUNTED, others)
    return OutboxCounts(
        pending=waiting["pending"], processing=waiting["processing"], failed=waiting["failed"], completed=completed,
        oldest_pending_at=waiting["oldest_pending_at"],
    )  # fmt: skip


async def read_freshness(
    connection: asyncpg.Connection, tables: Iterable[Table], org_id: int | None = None
) -> dict[str, datetime]:
    """When each dataset last gained a fact, of one org or of all (None); datasets without facts are left out."""
    latest: dict[str, datetime] = {}
    for table in tables:
        at = (
            await connection.fetchval(FRESHNESS.format(table=table.name))
            if org_id is None
            else await connection.fetchval(FRESHNESS_ORG.format(table=table.name), org_id)
        )
        if at is not None:
            latest[table.dataset] = at
    return latest
