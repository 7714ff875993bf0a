"""What the gauges and `projector status` show: the outbox in numbers, and how fresh the datasets are.

Nothing here costs what the outbox holds: counts are exact up to 5,000 rows, beyond that they are estimated; and
freshness is one index probe for each org.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from projector.registry import Table
from projector.sqlfile import load_sql

BACKLOG = load_sql(__file__, "sql/backlog.sql")
COMPLETED = load_sql(__file__, "sql/completed.sql")
SAMPLED = load_sql(__file__, "sql/sampled.sql")
FRESHNESS = load_sql(__file__, "sql/freshness.sql")
BACKLOG_ORG = load_sql(__file__, "sql/backlog_org.sql")
COUNT_ORG = load_sql(__file__, "sql/count_org.sql")
FRESHNESS_ORG = load_sql(__file__, "sql/freshness_org.sql")

_MOST_COUNTED = 5_000
_SAMPLED_PAGES = 400

STATUSES = ("pending", "processing", "failed", "dead", "completed")


@dataclass(frozen=True, slots=True)
class OutboxState:
    """The outbox at one moment of the database's clock.

    Attributes:
        at: that moment.
        rows: counts by status; `dead` apart from `failed`.
        estimated: the statuses whose counts are estimates, as there are too many rows to count.
        by_source_type: counts by source type and status, of what is not completed.
        lag_seconds: age of the oldest due row, by source type; only types that have one. Where `pending` is an
            estimate, a type that is not among the oldest 5,000 rows has the lag of the oldest that the sample met.
        oldest_pending_at: when the oldest pending row was created; of those that were counted, where not all were.
    """

    at: datetime
    rows: dict[str, int]
    estimated: frozenset[str]
    by_source_type: dict[str, dict[str, int]]
    lag_seconds: dict[str, float]
    oldest_pending_at: datetime | None

    @property
    def lag(self) -> float:
        """Age of the oldest due row, in seconds; 0 where none is due. Exact, however many rows wait."""
        return max(self.lag_seconds.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """The outbox of one org, or of all, in numbers; `failed` with its dead letters.

    `estimated` are the names of the counts that are estimates.
    """

    pending: int
    processing: int
    failed: int
    completed: int
    oldest_pending_at: datetime | None
    estimated: frozenset[str]


@dataclass(slots=True)
class _Backlog:
    """What is not completed, as it is put together from records of backlog.sql and of sampled.sql."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    oldest_due: dict[str, datetime] = field(default_factory=dict)
    pending_since: list[datetime] = field(default_factory=list)

    def add(self, record: asyncpg.Record) -> None:
        """Adds a record; of two counts of the same rows the higher one stands, as both may have missed some."""
        source_type, status = record["source_type"], record["status"]
        counts = self.rows.setdefault(source_type, {})
        if record["rows"]:
            counts[status] = max(record["rows"], counts.get(status, 0))
        if record["oldest_due_at"] is not None:
            known = self.oldest_due.get(source_type, record["oldest_due_at"])
            self.oldest_due[source_type] = min(record["oldest_due_at"], known)
        if status == "pending":
            self.pending_since.append(record["created_at"])


async def read_outbox(connection: asyncpg.Connection) -> OutboxState:
    """Counts the outbox. Costs at most three times 5,000 rows and 400 pages, however many rows there are."""
    at = await connection.fetchval("SELECT now()")
    backlog = _Backlog()
    estimated: set[str] = set()
    for record in await connection.fetch(BACKLOG, _MOST_COUNTED + 1):
        backlog.add(record)
        estimated.update(record["unsure"] or ())
    if estimated:
        for record in await connection.fetch(SAMPLED, None, _SAMPLED_PAGES):
            if record["status"] in estimated:
                backlog.add(record)
    rows = dict.fromkeys(STATUSES, 0)
    for counts in backlog.rows.values():
        for status, count in counts.items():
            rows[status] += count
    (completed,) = await connection.fetch(COMPLETED, sum(rows.values()))
    rows["completed"] = completed["rows"]
    if completed["estimated"]:
        estimated.add("completed")
    return OutboxState(
        at=at,
        rows=rows,
        estimated=frozenset(estimated),
        by_source_type=backlog.rows,
        lag_seconds={name: max((at - since).total_seconds(), 0.0) for name, since in backlog.oldest_due.items()},
        oldest_pending_at=min(backlog.pending_since, default=None),
    )


async def read_outbox_of_org(connection: asyncpg.Connection, org_id: int) -> OutboxCounts:
    """Counts the outbox of one org. Costs at most four times 5,000 rows and 400 pages, however many rows it has."""
    records = await connection.fetch(BACKLOG_ORG, _MOST_COUNTED + 1, org_id)
    rows = {record["status"]: record["rows"] for record in records}
    estimated = {record["status"] for record in records if record["beyond"]}
    oldest_pending = [record["created_at"] for record in records if record["created_at"] is not None]
    counted = await connection.fetchval(COUNT_ORG, org_id, _MOST_COUNTED + 1)
    rows["completed"] = max(counted - sum(rows.values()), 0)
    if counted > _MOST_COUNTED:
        estimated.add("completed")
    if estimated:
        sampled: Counter[str] = Counter()
        for record in await connection.fetch(SAMPLED, org_id, _SAMPLED_PAGES):
            sampled["failed" if record["status"] == "dead" else record["status"]] += record["rows"]
            if record["status"] == "pending":
                oldest_pending.append(record["created_at"])
        rows |= {status: max(rows[status], sampled[status]) for status in estimated}
    return OutboxCounts(**rows, oldest_pending_at=min(oldest_pending, default=None), estimated=frozenset(estimated))


async def read_freshness(
    connection: asyncpg.Connection, tables: Sequence[Table], org_id: int | None = None
) -> dict[str, datetime]:
    """When each dataset last gained a fact, of one org or of all (None); datasets without facts are left out."""
    records = (
        await connection.fetch(freshness_statement(FRESHNESS, tables))
        if org_id is None
        else await connection.fetch(freshness_statement(FRESHNESS_ORG, tables), org_id)
    )
    return {tables[record["place"]].dataset: record["at"] for record in records if record["at"] is not None}


def freshness_statement(of_a_table: str, tables: Sequence[Table]) -> str:
    """FRESHNESS or FRESHNESS_ORG for all tables at once: one round trip, however many datasets there are."""
    return "\nUNION ALL\n".join(of_a_table.format(place=place, table=table.name) for place, table in enumerate(tables))
