"""The outbox: what is claimed and released, and what settling tells (contract: outbox.md)."""

from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import outbox
from projector.batch import DELAY_BOUNDS
from projector.claims import claim
from tests.claimed import claim_ids, complete_ids, tids_of
from tests.obstacles import enqueue_tools, opened, set_columns, statuses
from tests.platform_rows import add_org, enqueue, outbox_row


async def enqueue_rows(connection: asyncpg.Connection, count: int, source_type: str = "event") -> list[UUID]:
    await add_org(connection)
    return [await enqueue(connection, source_type, uuid4()) for _ in range(count)]


async def shift(connection: asyncpg.Connection, row: UUID, column: str, **ago: float) -> None:
    """Sets a column to a time ago, by the database's clock."""
    await connection.execute(
        f"UPDATE reporting_outbox SET {column} = clock_timestamp() - $2::interval WHERE id = $1", row, timedelta(**ago)
    )


async def claimed(connection: asyncpg.Connection, limit: int = 100) -> list[UUID]:
    async with connection.transaction():
        return await claim_ids(connection, limit)


async def test_rows_are_claimed_in_the_order_in_which_they_became_due(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 4)
    for row, hours in zip(rows, (1, 4, 2, 3), strict=True):
        await shift(connection, row, "next_attempt_at", hours=hours)
    assert await claimed(connection) == [rows[1], rows[3], rows[2], rows[0]]


async def test_rows_due_at_the_same_time_are_claimed_by_id(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 6)
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = '2026-01-01'")
    assert await claimed(connection) == sorted(rows)


async def test_no_more_than_the_limit_is_claimed(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 5)
    assert await claimed(connection, 3) == rows[:3]


async def test_rows_that_are_not_due_are_left(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 3)
    await shift(connection, rows[0], "next_attempt_at", hours=-1)
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = 'infinity' WHERE id = $1", rows[1])
    assert await claimed(connection) == rows[2:]
    assert await outbox.count_due(connection) == 1


@pytest.mark.parametrize(
    ("status", "is_claimed"), [("pending", True), ("failed", True), ("processing", False), ("completed", False)]
)
async def test_only_pending_and_failed_rows_are_claimed(
    connection: asyncpg.Connection, status: str, is_claimed: bool
) -> None:
    rows = await enqueue_rows(connection, 1)
    await set_columns(connection, rows, status=status)
    assert await claimed(connection) == (rows if is_claimed else [])
    assert await outbox.count_due(connection) == is_claimed


async def test_a_claim_tells_what_a_batch_needs(connection: asyncpg.Connection) -> None:
    org_id = await add_org(connection, 7)
    source = uuid4()
    row = await enqueue(connection, "session", source, org_id=org_id)
    await set_columns(connection, [row], attempts=3)
    async with connection.transaction():
        assert await claim(connection, 1) == [
            outbox.ClaimedRows("session", True, True, await tids_of(connection, [row]), [7], [str(source)])
        ]


async def test_a_lease_is_released_after_15_minutes_and_not_before(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 4)
    await set_columns(connection, rows, status="processing", attempts=2)
    for row, age in zip(rows, ({"minutes": 15, "seconds": 1}, {"minutes": 14, "seconds": 50}), strict=False):
        await shift(connection, row, "claimed_at", **age)
        await shift(connection, row, "updated_at", days=1)  # claimed_at is what counts
    await shift(connection, rows[2], "updated_at", minutes=15, seconds=1)  # no claimed_at: updated_at counts
    await shift(connection, rows[3], "updated_at", minutes=14, seconds=50)
    assert await outbox.release_expired(connection) == 2
    assert await statuses(connection, rows) == ["pending", "processing", "pending", "processing"]
    released = await outbox_row(connection, rows[0])
    assert (released["claimed_at"], released["attempts"]) == (None, 2)
    assert await claimed(connection) == [rows[0], rows[2]]
    assert await outbox.release_expired(connection) == 0


async def test_only_leases_are_released(connection: asyncpg.Connection) -> None:
    rows = await enqueue_rows(connection, 3)
    for row, status in zip(rows, ("pending", "failed", "completed"), strict=True):
        await set_columns(connection, [row], status=status)
        await shift(connection, row, "claimed_at", days=1)
    assert await outbox.release_expired(connection) == 0
    assert await statuses(connection, rows) == ["pending", "failed", "completed"]


async def test_a_lease_that_somebody_is_just_settling_is_passed_over(
    database: str, connection: asyncpg.Connection
) -> None:
    rows = await enqueue_rows(connection, 2)
    await set_columns(connection, rows, status="processing")
    for row in rows:
        await shift(connection, row, "claimed_at", hours=1)
    await connection.execute("SET lock_timeout = '2s'")
    async with opened(database) as other, other.transaction():
        await set_columns(other, rows[:1], status="completed")
        assert await outbox.release_expired(connection) == 1
    assert await statuses(connection, rows) == ["completed", "pending"]


async def test_completing_tells_the_delays_by_type_and_bucket(connection: asyncpg.Connection) -> None:
    events = await enqueue_tools(connection, [f"tool-{number}" for number in range(7)])
    (session,) = await enqueue_rows(connection, 1, "session")
    ages = (0.7, 0.7, 0.7, 7, 40, 7200, -60)  # the last from a clock that is ahead of the database's
    for row, seconds in zip([*events, session], (*ages, 40), strict=True):
        await shift(connection, row, "created_at", seconds=seconds)
    delays = await complete_ids(connection, [*events, session], DELAY_BOUNDS)
    found = {(delay.source_type, delay.bucket): delay for delay in delays}
    last = len(DELAY_BOUNDS)
    one, ten, minute = (DELAY_BOUNDS.index(bound) for bound in (1, 10, 60))
    assert {key: delay.rows for key, delay in found.items()} == {
        ("event", 0): 1, ("event", one): 3, ("event", ten): 1, ("event", minute): 1, ("event", last): 1,
        ("session", minute): 1,
    }  # fmt: skip
    for (source_type, bucket), low, high in (
        (("event", 0), 0, 0), (("event", one), 2.1, 3), (("event", ten), 7, 10), (("event", minute), 40, 60),
        (("event", last), 7200, 7260), (("session", minute), 40, 60),
    ):  # fmt: skip
        assert low <= found[source_type, bucket].seconds <= high
    assert sum(delay.rows for delay in delays) == 8
    assert set(await statuses(connection, [*events, session])) == {"completed"}
