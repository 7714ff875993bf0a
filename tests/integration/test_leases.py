"""Rows that messages name: leased by a relay, claimed by id, found by the sweep if no message comes (design: feeds)."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from projector import outbox
from projector.leases import count_leased, lease, release
from projector.overdue import Overdue
from schemas.messages import OutboxKey, OutboxMessage
from tests.claimed import add_rows, fail, fail_ids, ids_of, tids_of
from tests.obstacles import opened, set_columns, statuses


async def claimed_of(connection: asyncpg.Connection, ids: list[UUID]) -> set[UUID]:
    """Which of some rows are claimed by their ids."""
    async with connection.transaction():
        return set(await ids_of(connection, await outbox.claim_ids(connection, ids)))


async def claim_overdue(connection: asyncpg.Connection, overdue: Overdue, limit: int) -> list[UUID]:
    async with connection.transaction():
        return await ids_of(connection, await overdue.claim(connection, limit))


async def test_due_and_leased_rows_are_claimed_by_their_ids(connection: asyncpg.Connection) -> None:
    pending, leased, failed, unnamed = await add_rows(connection, 1, 4)
    await lease(connection, await tids_of(connection, [leased]))
    await set_columns(connection, [failed], status="failed", attempts=3)
    assert await claimed_of(connection, [failed, pending, leased, pending, uuid4()]) == {pending, leased, failed}
    assert await statuses(connection, [unnamed]) == ["pending"]


@pytest.mark.parametrize("state", ["completed", "backing off", "put off", "dead"])
async def test_a_message_makes_no_row_due_any_sooner(connection: asyncpg.Connection, state: str) -> None:
    (row,) = await add_rows(connection, 1, 1)
    if state == "completed":
        await set_columns(connection, [row], status="completed")
    elif state == "put off":
        await outbox.postpone(connection, await tids_of(connection, [row]), "42703", 30)
    else:
        await fail(connection, [row], dead=state == "dead")
    assert await claimed_of(connection, [row]) == set()


async def test_rows_that_others_hold_are_passed_over(connection: asyncpg.Connection, database: str) -> None:
    held, free = await add_rows(connection, 1, 2)
    async with opened(database) as other, other.transaction():
        await outbox.claim_ids(other, [held])
        assert await claimed_of(connection, [held, free]) == {free}


async def test_what_a_claim_by_ids_passes_over_is_told_from_what_it_leaves(
    connection: asyncpg.Connection, database: str
) -> None:
    due, leased, free, done, dead, late = rows = await add_rows(connection, 1, 6)
    await lease(connection, await tids_of(connection, [leased]))
    await set_columns(connection, [done], status="completed")
    await fail(connection, [dead], dead=True)
    await fail(connection, [late], dead=False)
    async with opened(database) as other, other.transaction():
        await outbox.claim_ids(other, [due, leased])
        async with connection.transaction():
            groups = await outbox.claim_ids(connection, rows)
            claimed = [tid for group in groups for tid in group.tids]
            assert await ids_of(connection, groups) == [free]
            assert set(await outbox.find_held(connection, [*rows, uuid4()], claimed)) == {due, leased}


async def test_a_lease_takes_a_row_from_the_outbox_until_it_is_released(connection: asyncpg.Connection) -> None:
    rows = await add_rows(connection, 1, 3)
    await lease(connection, await tids_of(connection, rows[:2]))
    assert await statuses(connection, rows) == ["processing", "processing", "pending"]
    assert await connection.fetchval("SELECT count(*) FROM reporting_outbox WHERE claimed_at IS NOT NULL") == 2
    assert await count_leased(connection, 10) == 2
    assert await count_leased(connection, 1) == 1
    await set_columns(connection, [rows[0]], status="completed")
    # What was settled meanwhile stays so: its message got through after all.
    assert await release(connection, rows) == 1
    assert await statuses(connection, rows) == ["completed", "pending", "pending"]


async def test_a_leased_row_has_a_message_that_the_models_read(connection: asyncpg.Connection) -> None:
    (row,) = await add_rows(connection, 7, 1)
    (leased,) = await lease(connection, await tids_of(connection, [row]))
    (record,) = await connection.fetch("SELECT * FROM reporting_outbox")
    assert leased.id == row
    assert OutboxKey.model_validate_json(leased.key) == OutboxKey(
        org_id=7, source_type=record["source_type"], source_id=record["source_id"]
    )
    message = OutboxMessage.model_validate_json(leased.value)
    assert message.model_dump() == {"schema_version": "1.0"} | {
        name: record[name] for name in OutboxMessage.model_fields if name != "schema_version"
    }
    assert " :" not in leased.value


async def test_a_leased_row_that_cannot_be_projected_goes_back_to_the_outbox(connection: asyncpg.Connection) -> None:
    put_off, failed = rows = await add_rows(connection, 1, 2)
    await lease(connection, await tids_of(connection, rows))
    await outbox.postpone(connection, await tids_of(connection, [put_off]), "42703", 30)
    await fail_ids(connection, [failed], "22003", 10)
    assert await statuses(connection, rows) == ["pending", "failed"]
    assert await connection.fetchval(
        "SELECT bool_and(claimed_at IS NULL AND next_attempt_at > now()) FROM reporting_outbox"
    )


async def test_the_sweep_finds_what_has_been_due_for_long_oldest_first(connection: asyncpg.Connection) -> None:
    await add_rows(connection, 1, 5, seconds=20)
    old = await add_rows(connection, 2, 3, seconds=50)
    oldest = await add_rows(connection, 1, 2, seconds=100)
    overdue = Overdue(30)
    assert (await claim_overdue(connection, overdue, 4), overdue.more) == ([*oldest, *old[:2]], True)
    # What it gave and nobody settled is not met again in this sweep, but in the next one.
    assert (await claim_overdue(connection, overdue, 4), overdue.more) == (old[2:], False)
    assert await claim_overdue(connection, overdue, 4) == []
    assert await claim_overdue(connection, overdue, 4) == [*oldest, *old[:2]]


async def test_the_sweep_claims_rows_of_a_batch_that_was_given_up_again(connection: asyncpg.Connection) -> None:
    rows = await add_rows(connection, 1, 4, seconds=50)
    overdue = Overdue(30)
    assert await claim_overdue(connection, overdue, 2) == rows[:2]
    overdue.given_up()
    assert await claim_overdue(connection, overdue, 2) == rows[:2]


async def test_the_sweep_leaves_dead_and_leased_rows_alone(connection: asyncpg.Connection) -> None:
    dead, leased, failed = await add_rows(connection, 1, 3)
    await fail(connection, [dead])
    await lease(connection, await tids_of(connection, [leased]))
    await set_columns(connection, [failed], status="failed", attempts=1)
    assert await claim_overdue(connection, Overdue(30), 10) == [failed]
