"""The outbox: rows that a transaction holds, and how it settles them (contract: outbox.md)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from projector.sqlfile import load_sql
from schemas.outbox import NOTIFY_CHANNEL

CLAIM_ORG = load_sql(__file__, "sql/claim_org.sql")
CLAIM_IDS = load_sql(__file__, "sql/claim_ids.sql")
FIND_HELD = load_sql(__file__, "sql/find_held.sql")
COMPLETE = load_sql(__file__, "sql/complete.sql")
COMPLETE_AND_DELETE = load_sql(__file__, "sql/complete_and_delete.sql")
FAIL = load_sql(__file__, "sql/fail.sql")
POSTPONE = load_sql(__file__, "sql/postpone.sql")
RELEASE = load_sql(__file__, "sql/release.sql")
COUNT_DUE = load_sql(__file__, "sql/count_due.sql")

_SLICE = 1000

Tid = tuple[int, int]
"""Where a row is in its table: block and number. It stays as it is while the row is locked."""


@dataclass(frozen=True, slots=True)
class ClaimedRows:
    """Rows of one kind that this transaction holds; the sequences are parallel.

    Attributes:
        source_type: of all of them.
        retried: whether they have failed before.
        well_formed: whether their source ids are UUIDs.
        tids: where they are.
        org_ids, source_ids: their sources.
    """

    source_type: str
    retried: bool
    well_formed: bool
    tids: Sequence[Tid]
    org_ids: Sequence[int]
    source_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.tids)

    def part(self, start: int, end: int) -> "ClaimedRows":
        """The rows from one place to before another."""
        return ClaimedRows(
            self.source_type, self.retried, self.well_formed,
            self.tids[start:end], self.org_ids[start:end], self.source_ids[start:end],
        )  # fmt: skip


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


def claimed_rows(records: Iterable[asyncpg.Record]) -> list[ClaimedRows]:
    """The rows that a claim's statement gave; its other records, without a source type, are left out."""
    return [
        ClaimedRows(
            record["source_type"], record["retried"], record["well_formed"],
            record["tids"], record["org_ids"], record["source_ids"],
        )
        for record in records
        if record["source_type"] is not None
    ]  # fmt: skip


async def claim_org(connection: asyncpg.Connection, limit: int, org_id: int) -> list[ClaimedRows]:
    """Claims up to `limit` due rows of one org, oldest first, inside a transaction: the locks are the lease."""
    return claimed_rows(await connection.fetch(CLAIM_ORG, limit, org_id))


async def claim_ids(connection: asyncpg.Connection, ids: Sequence[UUID]) -> list[ClaimedRows]:
    """Claims those of some rows that are due or leased, inside a transaction: the locks are the lease."""
    return claimed_rows(await connection.fetch(CLAIM_IDS, ids))


async def find_held(connection: asyncpg.Connection, ids: Sequence[UUID], claimed: Sequence[Tid]) -> list[UUID]:
    """Which of some rows `claim_ids` passed over, in the same transaction, because somebody else held them."""
    return [record["id"] for record in await connection.fetch(FIND_HELD, ids, claimed)]


async def complete(
    connection: asyncpg.Connection, tids: Sequence[Tid], bounds: Sequence[float], *, keep: bool = True
) -> list[Delays]:
    """Settles rows as completed, and tells how long they took.

    Args:
        connection: inside the transaction that holds the rows.
        tids: where they are.
        bounds: of the buckets that delays are counted in, ascending, in seconds.
        keep: whether completed rows stay; if not, they are deleted.
    """
    statement = COMPLETE if keep else COMPLETE_AND_DELETE
    return [Delays(*record) for record in await connection.fetch(statement, tids, bounds)]


async def fail(
    connection: asyncpg.Connection, errors: Sequence[tuple[Tid, str]], max_attempts: int
) -> list[FailedOutcome]:
    """Settles rows as failed, each with its error: due again after a backoff, or dead after `max_attempts`."""
    records = await connection.fetch(FAIL, [tid for tid, _ in errors], [error for _, error in errors], max_attempts)
    return [
        FailedOutcome(record["id"], record["org_id"], record["source_type"], record["attempts"], record["dead"])
        for record in records
    ]


async def postpone(connection: asyncpg.Connection, tids: Sequence[Tid], error: str, seconds: float) -> None:
    """Puts rows off for some seconds without using up an attempt."""
    await connection.execute(POSTPONE, tids, error, seconds)


async def release_expired(connection: asyncpg.Connection) -> int:
    """Releases rows that other programs leased more than 15 minutes ago; gives how many."""
    return int(await connection.fetchval(RELEASE, _SLICE))


async def count_due(connection: asyncpg.Connection) -> int:
    """How many rows could be claimed now. Costs what it counts."""
    return int(await connection.fetchval(COUNT_DUE))


async def wake(connection: asyncpg.Connection) -> None:
    """Wakes projectors that listen. A hint: they would find the rows by polling too."""
    await connection.execute("SELECT pg_notify($1, '')", NOTIFY_CHANNEL)
