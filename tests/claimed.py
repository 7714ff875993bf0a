"""Claims made and settled by tests; claimed rows by their ids, as claims name rows by where they are."""

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg

from projector import outbox
from projector.claims import Backlog, Claimer, claim
from projector.outbox import ClaimedRows, Delays, FailedOutcome, Tid
from tests.platform_rows import add_org

ENQUEUE = """
    INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, next_attempt_at)
    SELECT
        $1, 'event', gen_random_uuid()::text, 'test',
        clock_timestamp() - make_interval(secs => $3) + n * interval '1 microsecond'
    FROM generate_series(1, $2) AS n
    RETURNING id
"""


class Clock:
    """Seconds that pass when told to, and at each look at the clock by `step`."""

    def __init__(self) -> None:
        self.now, self.step = 1000.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


async def add_rows(connection: asyncpg.Connection, org_id: int, rows: int, seconds: float = 100) -> list[UUID]:
    """Rows of an org that have been due for so long."""
    await add_org(connection, org_id)
    return [record["id"] for record in await connection.fetch(ENQUEUE, org_id, rows, seconds)]


async def settle(connection: asyncpg.Connection, claimer: Claimer, limit: int) -> Counter[int]:
    """Claims and settles a batch; gives how many rows of each org."""
    async with connection.transaction():
        groups = await claimer.claim(connection, limit)
        for group in groups:
            await outbox.complete(connection, group.tids, [1.0])
    claimer.settled()
    return orgs(groups)


def orgs(groups: list[ClaimedRows]) -> Counter[int]:
    return Counter(org_id for group in groups for org_id in group.org_ids)


async def warmed(connection: asyncpg.Connection, clock: Clock) -> Claimer:
    """A daemon's claimer that has looked once, and found nothing."""
    claimer = Claimer(Backlog(clock))
    assert await settle(connection, claimer, 100) == {}
    return claimer


async def tids_of(connection: asyncpg.Connection, ids: Sequence[UUID]) -> list[Tid]:
    """Where rows are, in the order of their ids given."""
    records = await connection.fetch(
        """
        SELECT o.ctid FROM unnest($1::uuid[]) WITH ORDINALITY AS given (id, place)
        JOIN reporting_outbox AS o ON o.id = given.id ORDER BY given.place
        """,
        ids,
    )
    return [record["ctid"] for record in records]


async def ids_of(connection: asyncpg.Connection, groups: Iterable[ClaimedRows]) -> list[UUID]:
    """Which rows were claimed, the first due ones first."""
    tids = [tid for group in groups for tid in group.tids]
    records = await connection.fetch(
        "SELECT id FROM reporting_outbox WHERE ctid = ANY ($1::tid[]) ORDER BY next_attempt_at, id", tids
    )
    assert len(records) == len(tids)
    return [record["id"] for record in records]


async def claim_ids(connection: asyncpg.Connection, limit: int) -> list[UUID]:
    """Claims as a worker does that has seen nothing yet; the first due ones first."""
    return await ids_of(connection, await claim(connection, limit))


async def complete_ids(connection: asyncpg.Connection, ids: Sequence[UUID], bounds: Sequence[float]) -> list[Delays]:
    """Settles rows as completed."""
    return await outbox.complete(connection, await tids_of(connection, ids), bounds)


async def fail_ids(
    connection: asyncpg.Connection, ids: Sequence[UUID], error: str, max_attempts: int
) -> list[FailedOutcome]:
    """Settles rows as failed with one error."""
    return await outbox.fail(connection, [(tid, error) for tid in await tids_of(connection, ids)], max_attempts)


async def fail(connection: asyncpg.Connection, rows: Sequence[UUID], *, dead: bool = True) -> None:
    """Settles rows as failed, dead or with attempts left, with an error as data would give it."""
    await fail_ids(connection, rows, "22003", 1 if dead else 10)
