"""The outbox: claim and settle (contract: outbox.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from projector.sqlfile import load_sql
from schemas.outbox import NOTIFY_CHANNEL

CLAIM = load_sql(__file__, "sql/claim.sql")
CLAIM_ORG = load_sql(__file__, "sql/claim_org.sql")
COMPLETE = load_sql(__file__, "sql/complete.sql")
FAIL = load_sql(__file__, "sql/fail.sql")
POSTPONE = load_sql(__file__, "sql/postpone.sql")
RELEASE = load_sql(__file__, "sql/release.sql")
COUNT_DUE = load_sql(__file__, "sql/count_due.sql")

_SLICE = 1000
_BEFORE_ALL_ORGS = -(2**63)
_ROWS_FOR_EACH_ORG = 4


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


class Ring:
    """Where in the ring of orgs that have rows a worker is: its next claim goes on there."""

    def __init__(self) -> None:
        self.after = _BEFORE_ALL_ORGS

    @property
    def at_start(self) -> bool:
        """Whether the next claim begins with the first org."""
        return self.after == _BEFORE_ALL_ORGS

    def go_on(self, last_org: int | None) -> None:
        """Goes on after an org; after None, which ended the ring, at its start."""
        self.after = _BEFORE_ALL_ORGS if last_org is None else last_org


async def claim(connection: asyncpg.Connection, limit: int, ring: Ring | None = None) -> list[ClaimedRow]:
    """Claims up to `limit` due rows. The locks are the lease: they end with the transaction.

    Fair among orgs: no org's backlog delays the rows of another, nor its own newest ones (projector/sql/claim.sql).

    Args:
        connection: inside a transaction.
        limit: the most rows.
        ring: remembers which orgs come next; without it, the first ones.

    Returns:
        The rows; none only where no org had any due row that nobody held.
    """
    ring = ring or Ring()
    orgs = max(limit // _ROWS_FOR_EACH_ORG, 1)
    rounds = 1 if ring.at_start else 2
    while True:
        *records, end = await connection.fetch(CLAIM, limit, ring.after, orgs)
        ring.go_on(end["org_id"])
        # The oldest and the newest rows of an org may be the same ones.
        rows = {record["id"]: ClaimedRow(*record) for record in records}
        if rows:
            return list(rows.values())[:limit]
        if ring.at_start:
            rounds -= 1
            if rounds == 0:
                return []


async def claim_org(connection: asyncpg.Connection, limit: int, org_id: int) -> list[ClaimedRow]:
    """Claims up to `limit` due rows of one org, oldest first, inside a transaction."""
    return [ClaimedRow(*record) for record in await connection.fetch(CLAIM_ORG, limit, org_id)]


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


async def wake(connection: asyncpg.Connection) -> None:
    """Wakes projectors that listen. A hint: they would find the rows by polling too."""
    await connection.execute("SELECT pg_notify($1, '')", NOTIFY_CHANNEL)
