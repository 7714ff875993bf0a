"""Claimed rows by their ids: claims and settlements name rows by where they are."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg

from projector import outbox
from projector.claims import claim
from projector.outbox import ClaimedRows, Delays, FailedOutcome, Tid


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
