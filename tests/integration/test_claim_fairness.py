"""Claims are fair: among orgs, and between a backlog and live work (design: promise 8)."""

from collections import Counter
from uuid import UUID

import asyncpg
import pytest

from projector import outbox
from projector.outbox import Ring
from tests.obstacles import opened
from tests.platform_rows import add_org, enqueue

ENQUEUE = """
    INSERT INTO reporting_outbox (org_id, source_type, source_id, reason, next_attempt_at)
    SELECT
        $1, 'event', gen_random_uuid()::text, 'test',
        now() - make_interval(secs => $3) + n * interval '1 microsecond'
    FROM generate_series(1, $2) AS n
"""


async def backlog(connection: asyncpg.Connection, org_id: int, rows: int, seconds: float = 100) -> None:
    """Rows of an org that have been due for so long."""
    await add_org(connection, org_id)
    await connection.execute(ENQUEUE, org_id, rows, seconds)


async def claim(connection: asyncpg.Connection, limit: int, ring: Ring | None = None) -> Counter[int]:
    """Claims and settles; gives how many rows of each org."""
    async with connection.transaction():
        rows = await outbox.claim(connection, limit, ring)
        await outbox.complete(connection, [row.id for row in rows], [1.0])
    assert len({row.id for row in rows}) == len(rows)
    return Counter(row.org_id for row in rows)


async def oldest_and_newest(connection: asyncpg.Connection, org_id: int) -> tuple[UUID, UUID]:
    records = await connection.fetch(
        "SELECT id FROM reporting_outbox WHERE org_id = $1 ORDER BY next_attempt_at", org_id
    )
    return records[0]["id"], records[-1]["id"]


async def test_orgs_with_a_backlog_share_a_claim_evenly(connection: asyncpg.Connection) -> None:
    for org_id in (1, 2, 3, 4):
        await backlog(connection, org_id, 1000, seconds=100 - org_id)
    assert await claim(connection, 400) == {1: 100, 2: 100, 3: 100, 4: 100}


@pytest.mark.parametrize("limit", [40, 400, 401, 999])
async def test_what_small_orgs_leave_over_goes_to_those_that_have_more(
    connection: asyncpg.Connection, limit: int
) -> None:
    await backlog(connection, 1, 2000)
    for org_id in (2, 3, 4):
        await backlog(connection, org_id, 2, seconds=1)
    claimed = await claim(connection, limit)
    assert claimed.total() == limit
    assert claimed == {1: limit - 6, 2: 2, 3: 2, 4: 2}


async def test_the_oldest_rows_and_live_ones_are_claimed_before_the_bulk(connection: asyncpg.Connection) -> None:
    await backlog(connection, 1, 1000)
    oldest, _ = await oldest_and_newest(connection, 1)
    await backlog(connection, 1, 1, seconds=1)
    _, live = await oldest_and_newest(connection, 1)
    async with connection.transaction():
        claimed = {row.id for row in await outbox.claim(connection, 8)}
    assert {oldest, live} <= claimed


async def test_a_backlog_without_live_rows_is_claimed_in_its_order(connection: asyncpg.Connection) -> None:
    await backlog(connection, 1, 1000, seconds=61)
    async with connection.transaction():
        claimed = [row.id for row in await outbox.claim(connection, 400)]
    first = await connection.fetch("SELECT id FROM reporting_outbox ORDER BY next_attempt_at LIMIT 400")
    assert claimed == [record["id"] for record in first]


async def test_a_claim_of_one_row_takes_the_oldest(connection: asyncpg.Connection) -> None:
    await backlog(connection, 1, 10)
    oldest, _ = await oldest_and_newest(connection, 1)
    async with connection.transaction():
        assert [row.id for row in await outbox.claim(connection, 1)] == [oldest]


async def test_every_org_has_its_turn_however_many_there_are(connection: asyncpg.Connection) -> None:
    for org_id in range(1, 31):
        await backlog(connection, org_id, 50)
    ring = Ring()
    served: list[Counter[int]] = [await claim(connection, 40, ring) for _ in range(3)]
    assert [min(claimed.values()) for claimed in served] == [4, 4, 4]
    assert set().union(*served) == set(range(1, 31))


async def test_a_ring_that_ended_goes_on_with_the_first_org(connection: asyncpg.Connection) -> None:
    for org_id in (5, 6, 7):
        await backlog(connection, org_id, 50)
    ring = Ring()
    assert [set(await claim(connection, 8, ring)) for _ in range(4)] == [{5, 6}, {7}, {5, 6}, {7}]


async def test_the_first_due_row_is_found_behind_any_number_of_orgs_that_have_none(
    connection: asyncpg.Connection,
) -> None:
    for org_id in range(1, 10):
        await backlog(connection, org_id, 1, seconds=-600)
    await backlog(connection, 10, 1)
    assert await claim(connection, 4) == {10: 1}
    assert await claim(connection, 4) == {}
    ring = Ring()
    ring.go_on(5)
    assert await claim(connection, 4, ring) == {}
    await backlog(connection, 3, 1)
    ring.go_on(5)
    assert await claim(connection, 4, ring) == {3: 1}


async def test_orgs_with_dead_letters_alone_are_not_looked_at(connection: asyncpg.Connection) -> None:
    for org_id in range(1, 10):
        await backlog(connection, org_id, 1)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed', next_attempt_at = 'infinity'")
    await backlog(connection, 10, 1)
    end = (await connection.fetch(outbox.CLAIM, 100, 0, 25))[-1]
    assert (end["id"], end["org_id"], end["attempts"]) == (None, None, 1)
    assert await claim(connection, 4) == {10: 1}


async def test_a_row_that_another_holds_leaves_its_place_to_the_next(
    database: str, connection: asyncpg.Connection
) -> None:
    await backlog(connection, 1, 20)
    await backlog(connection, 2, 20)
    async with opened(database) as other, other.transaction():
        held = {row.id for row in await outbox.claim(other, 20)}
        async with connection.transaction():
            mine = {row.id for row in await outbox.claim(connection, 20)}
    assert len(held) == len(mine) == 20
    assert not held & mine


async def test_orgs_whose_rows_are_not_due_take_nothing_from_a_batch(connection: asyncpg.Connection) -> None:
    for org_id in range(1, 24):
        await backlog(connection, org_id, 1, seconds=-600)
    await backlog(connection, 24, 10)
    await backlog(connection, 25, 1000)
    assert await claim(connection, 100) == {24: 10, 25: 90}


async def test_rows_that_are_not_due_are_left_by_every_part_of_a_claim(connection: asyncpg.Connection) -> None:
    await backlog(connection, 1, 80)
    await backlog(connection, 1, 40, seconds=-600)
    assert await claim(connection, 100) == {1: 80}
    assert await claim(connection, 100) == {}


async def test_orgs_with_failed_rows_alone_have_their_turn(connection: asyncpg.Connection) -> None:
    for org_id in (1, 2, 3):
        await backlog(connection, org_id, 2)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed'")
    assert await claim(connection, 12) == {1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize("limit", [9, 10, 11, 21, 33])
async def test_what_does_not_divide_evenly_is_claimed_all_the_same(connection: asyncpg.Connection, limit: int) -> None:
    for org_id in (1, 2):
        await backlog(connection, org_id, 50)
    assert (await claim(connection, limit)).total() == limit


@pytest.mark.parametrize("place", [0, 15, 99], ids=["among the oldest", "in the middle", "the newest"])
async def test_a_claim_never_waits_for_a_row_that_another_holds(
    database: str, connection: asyncpg.Connection, place: int
) -> None:
    await backlog(connection, 1, 100)
    for org_id in (2, 3, 4):
        await backlog(connection, org_id, 1)
    held = await connection.fetchval(
        "SELECT id FROM reporting_outbox WHERE org_id = 1 ORDER BY next_attempt_at OFFSET $1 LIMIT 1", place
    )
    await connection.execute("SET lock_timeout = '2s'")
    async with opened(database) as other, other.transaction():
        await other.execute("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", held)
        async with connection.transaction():
            claimed = await outbox.claim(connection, 40)
    assert held not in {row.id for row in claimed}
    assert Counter(row.org_id for row in claimed) == {1: 37, 2: 1, 3: 1, 4: 1}


async def test_what_one_part_of_a_claim_has_does_not_use_up_another(connection: asyncpg.Connection) -> None:
    await backlog(connection, 1, 40)
    await backlog(connection, 2, 1000)
    claimed = await claim(connection, 100)
    assert claimed[1] == 40
    assert claimed[2] >= 50


async def test_the_smallest_org_id_there_can_be_is_served_too(connection: asyncpg.Connection) -> None:
    for org_id in (-(2**63) + 1, -5, 0, 2**63 - 1):
        await add_org_of_any_id(connection, org_id)
        await enqueue(connection, "event", "x", org_id)
    assert await claim(connection, 100) == {-(2**63) + 1: 1, -5: 1, 0: 1, 2**63 - 1: 1}


async def add_org_of_any_id(connection: asyncpg.Connection, org_id: int) -> None:
    """An org whose id may be negative, which has no public id of the usual form."""
    if org_id >= 0:
        await add_org(connection, org_id)
        return
    await connection.execute("INSERT INTO organizations (org_id, public_id, name) VALUES ($1, NULL, 'x')", org_id)
