"""Claims of fresh rows: by themselves, in the order in which they became due (design: promise 8)."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from projector import outbox
from projector.claims import Backlog, Claimer
from tests.claimed import Clock, add_rows, claim_ids, ids_of, orgs, settle, warmed
from tests.clocks import set_clock, shift_clock
from tests.obstacles import opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_fresh_rows_are_claimed_by_themselves_before_a_backlog(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    clock.now += 2
    assert (await settle(connection, claimer, 100)) == {1: 100}
    await add_rows(connection, 2, 3, seconds=0)
    assert await settle(connection, claimer, 100) == {2: 3}


async def test_fresh_rows_and_a_backlog_take_turns(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    clock.now += 2
    assert await settle(connection, claimer, 10) == {1: 10}
    await add_rows(connection, 2, 25, seconds=0)
    assert [await settle(connection, claimer, 10) for _ in range(5)] == [{2: 10}, {1: 10}, {2: 10}, {1: 10}, {2: 5}]


async def test_fresh_rows_need_no_sweep(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await warmed(connection, clock)
    for org_id in (3, 5):
        await add_rows(connection, org_id, 1, seconds=0)
        assert await settle(connection, claimer, 100) == {org_id: 1}


async def test_fresh_rows_are_claimed_in_the_order_in_which_they_became_due(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    later, earlier = [await add_rows(connection, 1, 5, seconds=seconds) for seconds in (0.02, 0.1)]
    for rows in (earlier, later):
        clock.now += 0.06
        async with connection.transaction():
            groups = await claimer.claim(connection, 5)
            assert await ids_of(connection, groups) == rows
            await outbox.complete(connection, [tid for group in groups for tid in group.tids], [1.0])


@pytest.mark.parametrize(("milliseconds", "looks"), [(0, 1), (10, 1), (150, 2)])
async def test_a_row_of_a_transaction_that_commits_late_is_fresh_all_the_same(
    connection: asyncpg.Connection, clock: Clock, milliseconds: int, looks: int
) -> None:
    claimer = await warmed(connection, clock)
    backlog = claimer._backlog  # noqa: SLF001 - what time the server had at the last look
    await add_rows(connection, 1, 1)
    for look in range(1, looks + 1):
        await connection.execute(
            "UPDATE reporting_outbox SET next_attempt_at = $1",
            backlog._looked_at - timedelta(milliseconds=milliseconds),  # type: ignore[operator]  # noqa: SLF001
        )
        # Every look reaches back a little, and one each twentieth of a second further.
        clock.now += 0.03
        assert await settle(connection, claimer, 100) == ({1: 1} if look == looks else {})


async def test_a_row_of_a_transaction_that_commits_very_late_is_found_by_a_sweep(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1, seconds=30)
    assert await settle(connection, claimer, 100) == {}
    clock.now += 1
    assert await settle(connection, claimer, 100) == {1: 1}


async def test_live_rows_of_the_last_minute_do_not_queue_behind_their_orgs_backlog_after_a_restart(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    await add_rows(connection, 1, 1000)
    await add_rows(connection, 1, 3, seconds=50)
    assert await settle(connection, Claimer(Backlog(clock)), 100) == {1: 3}


async def test_rows_that_another_worker_is_just_projecting_make_nobody_look_at_the_whole_last_minute(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    (late,) = await add_rows(connection, 1, 1, seconds=30)
    await connection.execute("UPDATE reporting_outbox SET status = 'completed' WHERE id = $1", late)
    await add_rows(connection, 2, 1, seconds=0.5)
    async with opened(database) as other, other.transaction():
        assert len(await claim_ids(other, 1)) == 1
        clock.now += 2
        assert await settle(connection, claimer, 100) == {}
        await connection.execute("UPDATE reporting_outbox SET status = 'pending' WHERE id = $1", late)
        assert await settle(connection, claimer, 100) == {}


async def test_a_late_commit_does_not_queue_behind_its_orgs_backlog(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = Claimer(Backlog(clock))
    await add_rows(connection, 1, 1000)
    assert await settle(connection, claimer, 100) == {1: 100}
    await add_rows(connection, 1, 3, seconds=30)
    assert await settle(connection, claimer, 100) == {1: 100}
    clock.now += 2
    assert await settle(connection, claimer, 100) == {1: 3}


async def test_fresh_rows_of_a_batch_that_was_given_up_are_fresh_again(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    await shift_clock(connection)
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000)
    rows = await add_rows(connection, 1, 3, seconds=0)
    for seconds in (0, 0.6, 1.2):
        await set_clock(connection, seconds)
        transaction = connection.transaction()
        await transaction.start()
        assert await ids_of(connection, await claimer.claim(connection, 100)) == rows
        await transaction.rollback()
        claimer.given_up()


async def test_more_fresh_rows_than_a_batch_takes_become_a_backlog_in_which_orgs_take_turns(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1000, seconds=0.1)
    clock.now += 0.06
    await add_rows(connection, 2, 5, seconds=0)
    assert await settle(connection, claimer, 100) == {1: 100}
    assert (await settle(connection, claimer, 100))[2] == 5


async def test_rows_that_become_due_while_nobody_looks_are_fresh_at_the_next_look(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    await shift_clock(connection)
    claimer = await warmed(connection, clock)
    await add_rows(connection, 1, 1, seconds=-60)
    assert await settle(connection, claimer, 100) == {}
    await set_clock(connection, 60.6)
    assert await settle(connection, claimer, 100) == {1: 1}


async def with_dear_sweeps(connection: asyncpg.Connection, clock: Clock) -> Claimer:
    """A claimer whose first sweep took a second, so that the next one is a minute away."""
    clock.step = 1
    claimer = await warmed(connection, clock)
    clock.step = 0
    return claimer


@pytest.mark.parametrize(("late_seconds", "found_seconds"), [(1.5, 1), (15, 10)])
async def test_a_late_commit_is_found_in_about_the_time_that_it_is_late_where_sweeps_are_dear(
    connection: asyncpg.Connection, clock: Clock, late_seconds: float, found_seconds: float
) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    await add_rows(connection, 1, 1, seconds=late_seconds)
    clock.now += found_seconds
    assert await settle(connection, claimer, 100) == {1: 1}


async def test_what_a_look_leaves_is_gone_on_with_where_sweeps_are_dear(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    await add_rows(connection, 1, 250, seconds=0.1)
    clock.now += 0.06
    assert await settle(connection, claimer, 100) == {1: 100}
    assert claimer.more
    await add_rows(connection, 2, 3, seconds=0)
    assert [await settle(connection, claimer, 100) for _ in range(3)] == [{1: 100}, {2: 3}, {1: 50}]
    assert not claimer.more


async def test_of_what_two_looks_leave_the_older_rows_come_first(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    backlog = claimer._backlog  # noqa: SLF001 - two looks in a row, as two workers make them
    clock.now += 0.06
    for org_id, seconds in ((1, 0.1), (2, 0)):
        await add_rows(connection, org_id, 15, seconds)
        async with connection.transaction():
            groups = await backlog.claim_fresh(connection, 10)
            assert orgs(groups) == {org_id: 10}
            for group in groups:
                await outbox.complete(connection, group.tids, [1.0])
    async with connection.transaction():
        assert orgs(await backlog.claim_left(connection, 5)) == {1: 5}


async def test_rows_of_one_transaction_that_a_look_leaves_are_not_walked_again(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    rows = sorted(await add_rows(connection, 1, 30, seconds=0))
    await connection.execute("UPDATE reporting_outbox SET next_attempt_at = now()")
    assert await settle(connection, claimer, 10) == {1: 10}
    await connection.execute("UPDATE reporting_outbox SET status = 'pending' WHERE id = $1", rows[5])
    async with connection.transaction():
        assert await ids_of(connection, await claimer.claim(connection, 10)) == rows[10:20]


async def test_a_sweep_of_all_orgs_knows_what_looks_have_left(connection: asyncpg.Connection, clock: Clock) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    await add_rows(connection, 1, 250, seconds=0.1)
    clock.now += 0.06
    await settle(connection, claimer, 100)
    await connection.execute("UPDATE reporting_outbox SET status = 'completed'")
    clock.now += 200
    await claimer._backlog.sweep(connection)  # noqa: SLF001 - what a claim begins with
    assert not claimer.more


class Slow:
    """A connection whose answers arrive when told to."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.answers, self.asked, self._connection = asyncio.Event(), asyncio.Event(), connection

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        records: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        self.asked.set()
        await self.answers.wait()
        return records


async def test_what_a_look_leaves_while_another_worker_goes_on_with_older_rows_is_not_lost(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await with_dear_sweeps(connection, clock)
    backlog = claimer._backlog  # noqa: SLF001 - what two workers share
    await add_rows(connection, 1, 150, seconds=0.1)
    clock.now += 0.06
    assert await settle(connection, claimer, 100) == {1: 100}
    async with opened(database) as other, other.transaction():
        slow = Slow(other)
        theirs = asyncio.create_task(backlog.claim_left(slow, 100))  # type: ignore[arg-type]
        await slow.asked.wait()
        await add_rows(connection, 2, 150, seconds=0)
        assert orgs(await backlog.claim_fresh(connection, 100)) == {2: 100}
        slow.answers.set()
        assert orgs(await theirs) == {1: 50}
        async with connection.transaction():
            assert orgs(await backlog.claim_left(connection, 150))[2] >= 50


async def test_while_one_worker_sweeps_no_other_begins_to(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = await warmed(connection, clock)
    backlog = claimer._backlog  # noqa: SLF001 - what two workers share
    clock.now += 2
    async with opened(database) as other, other.transaction():
        slow = Slow(other)
        sweep = asyncio.create_task(backlog.sweep(slow))  # type: ignore[arg-type]
        await slow.asked.wait()
        assert not backlog.sweep_is_due
        slow.answers.set()
        await sweep
    clock.now += 2
    assert backlog.sweep_is_due
