"""Claims of backlogs are fair and flat: org by org, nothing walked twice (design: promise 8)."""

from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import pytest

from projector.claims import Backlog, Claimer
from tests.claimed import Clock, add_rows, claim_ids, ids_of, orgs, settle, warmed
from tests.obstacles import opened
from tests.platform_rows import add_org, enqueue


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_orgs_with_a_backlog_share_a_batch_evenly(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (1, 2, 3, 4):
        await add_rows(connection, org_id, 1000, seconds=100 - org_id)
    assert await settle(connection, Claimer(Backlog(clock)), 400) == {1: 100, 2: 100, 3: 100, 4: 100}


@pytest.mark.parametrize("limit", [40, 400, 401, 999])
async def test_small_orgs_leave_their_room_to_those_that_have_more(
    connection: asyncpg.Connection, clock: Clock, limit: int
) -> None:
    await add_rows(connection, 1, 2000)
    for org_id in (2, 3, 4):
        await add_rows(connection, org_id, 2)
    claimed = await settle(connection, Claimer(Backlog(clock)), limit)
    assert limit // 2 <= claimed.total() <= limit
    assert {org_id: claimed[org_id] for org_id in (2, 3, 4)} == {2: 2, 3: 2, 4: 2}


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11, 21, 33])
async def test_no_more_than_the_limit_is_claimed(connection: asyncpg.Connection, clock: Clock, limit: int) -> None:
    for org_id in (1, 2, 3):
        await add_rows(connection, org_id, 50)
    assert 1 <= (await settle(connection, Claimer(Backlog(clock)), limit)).total() <= limit


async def test_an_org_goes_on_where_its_last_claim_ended(connection: asyncpg.Connection, clock: Clock) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    await settle(connection, claimer, 40)
    # What lies behind that place is not looked at before the next sweep: it might be a million dead entries.
    (behind,) = await add_rows(connection, 1, 1)
    await connection.execute(
        "UPDATE reporting_outbox SET next_attempt_at = (SELECT next_attempt_at FROM reporting_outbox WHERE id = $2) "
        "WHERE id = $1", behind, rows[10],
    )  # fmt: skip
    async with connection.transaction():
        assert await ids_of(connection, await claimer.claim(connection, 40)) == rows[40:80]
    clock.now += 2
    async with connection.transaction():
        assert behind in await ids_of(connection, await claimer.claim(connection, 40))


async def test_two_workers_of_a_process_serve_different_orgs(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    for org_id in (1, 2, 3, 4):
        await add_rows(connection, org_id, 500)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction(), connection.transaction():
        mine = orgs(await first.claim(connection, 100))
        theirs = orgs(await second.claim(other, 100))
        assert set(mine) | set(theirs) == {1, 2, 3, 4}
        assert not set(mine) & set(theirs)
    first.settled()
    second.settled()


async def test_no_two_of_many_workers_serve_the_same_org_where_there_are_enough(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    for org_id in range(1, 6):
        await add_rows(connection, org_id, 100)
    backlog = Backlog(clock)
    claimers = [Claimer(backlog) for _ in range(4)]
    served: list[int] = []
    async with AsyncExitStack() as stack:
        for claimer in claimers:
            other = await stack.enter_async_context(opened(database))
            await stack.enter_async_context(other.transaction())
            served += orgs(await claimer.claim(other, 40))
    assert len(served) == len(set(served)) >= 4


async def test_an_org_that_a_worker_is_still_at_is_left_to_it(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    for org_id in (1, 2):
        await add_rows(connection, org_id, 500)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction():
        assert orgs(await first.claim(other, 100)) == {1: 100}
        assert [await settle(connection, second, 100) for _ in range(2)] == [{2: 100}, {2: 100}]
    first.settled()
    assert await settle(connection, second, 100) == {1: 100}


async def test_two_workers_share_the_only_org_there_is(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    rows = await add_rows(connection, 1, 200)
    backlog = Backlog(clock)
    first, second = Claimer(backlog), Claimer(backlog)
    async with opened(database) as other, other.transaction(), connection.transaction():
        assert await ids_of(connection, await first.claim(connection, 100)) == rows[:100]
        assert await ids_of(other, await second.claim(other, 100)) == rows[100:]


async def test_every_org_has_its_turn_however_many_there_are(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 31):
        await add_rows(connection, org_id, 50)
    claimer = Claimer(Backlog(clock))
    served = [await settle(connection, claimer, 40) for _ in range(3)]
    assert [set(claimed.values()) for claimed in served] == [{4}, {4}, {4}]
    assert set().union(*served) == set(range(1, 31))


@pytest.fixture
def short_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps that look at four orgs."""
    monkeypatch.setattr("projector.claims._ORGS_OF_A_SWEEP", 4)


@pytest.mark.usefixtures("short_sweeps")
@pytest.mark.parametrize("exact", [False, True])
async def test_sweeps_go_on_until_they_have_come_to_an_org_with_due_rows(
    connection: asyncpg.Connection, clock: Clock, exact: bool
) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 1, seconds=-600)
    await add_rows(connection, 10, 1)
    claimer = Claimer(Backlog(clock, exact=exact))
    assert await settle(connection, claimer, 100) == {10: 1}
    assert await settle(connection, claimer, 100) == {}


@pytest.mark.usefixtures("short_sweeps")
async def test_sweeps_come_to_all_orgs_in_turn(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 3)
    claimer = Claimer(Backlog(clock))
    served: Counter[int] = Counter()
    for _ in range(6):
        served += await settle(connection, claimer, 16)
    assert served == dict.fromkeys(range(1, 10), 3)


async def test_what_was_claimed_and_given_up_is_claimed_again(connection: asyncpg.Connection, clock: Clock) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    for _ in range(2):
        transaction = connection.transaction()
        await transaction.start()
        assert await ids_of(connection, await claimer.claim(connection, 40)) == rows[:40]
        await transaction.rollback()
        claimer.given_up()


async def test_what_another_process_left_is_found_by_a_sweep(
    database: str, connection: asyncpg.Connection, clock: Clock
) -> None:
    rows = await add_rows(connection, 1, 100)
    claimer = Claimer(Backlog(clock))
    async with opened(database) as other:
        held = other.transaction()
        await held.start()
        assert await claim_ids(other, 40) == rows[:40]
        assert await settle(connection, claimer, 100) == {1: 60}
        await held.rollback()
    assert await settle(connection, claimer, 100) == {}
    clock.now += 2
    assert await settle(connection, claimer, 100) == {1: 40}


async def test_a_claim_that_is_to_be_exact_sweeps_before_it_says_that_nothing_is_due(
    connection: asyncpg.Connection, clock: Clock
) -> None:
    claimer = Claimer(Backlog(clock, exact=True))
    assert await settle(connection, claimer, 100) == {}
    await add_rows(connection, 1, 1)
    assert await settle(connection, claimer, 100) == {1: 1}


async def test_orgs_with_dead_letters_alone_are_not_looked_at(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in range(1, 10):
        await add_rows(connection, org_id, 1)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed', next_attempt_at = 'infinity'")
    await add_rows(connection, 10, 1)
    assert await settle(connection, Claimer(Backlog(clock)), 4) == {10: 1}


async def test_rows_that_are_not_due_are_left(connection: asyncpg.Connection, clock: Clock) -> None:
    await add_rows(connection, 1, 80)
    await add_rows(connection, 1, 40, seconds=-600)
    claimer = Claimer(Backlog(clock))
    assert await settle(connection, claimer, 100) == {1: 80}
    assert await settle(connection, claimer, 100) == {}


async def test_orgs_with_failed_rows_alone_have_their_turn(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (1, 2, 3):
        await add_rows(connection, org_id, 2)
    await connection.execute("UPDATE reporting_outbox SET status = 'failed'")
    assert await settle(connection, Claimer(Backlog(clock)), 12) == {1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize("seconds", [0, 100], ids=["fresh", "backlog"])
@pytest.mark.parametrize("place", [0, 15, 39], ids=["first", "in the middle", "last"])
async def test_a_claim_never_waits_for_a_row_that_another_holds(
    database: str, connection: asyncpg.Connection, clock: Clock, place: int, seconds: float
) -> None:
    claimer = await warmed(connection, clock)
    held = (await add_rows(connection, 1, 40, seconds))[place]
    clock.now += 2
    await connection.execute("SET lock_timeout = '2s'")
    async with opened(database) as other, other.transaction():
        await other.execute("SELECT FROM reporting_outbox WHERE id = $1 FOR UPDATE", held)
        async with connection.transaction():
            claimed = await ids_of(connection, await claimer.claim(connection, 100))
    assert held not in claimed
    assert len(claimed) == 39


async def test_the_smallest_org_id_there_can_be_is_served_too(connection: asyncpg.Connection, clock: Clock) -> None:
    for org_id in (-(2**63) + 1, -5, 0, 2**63 - 1):
        await add_org_of_any_id(connection, org_id)
        await enqueue(connection, "event", "x", org_id)
    claimed = await settle(connection, Claimer(Backlog(clock)), 100)
    assert claimed == {-(2**63) + 1: 1, -5: 1, 0: 1, 2**63 - 1: 1}


async def add_org_of_any_id(connection: asyncpg.Connection, org_id: int) -> None:
    """An org whose id may be negative, which has no public id of the usual form."""
    if org_id >= 0:
        await add_org(connection, org_id)
        return
    await connection.execute("INSERT INTO organizations (org_id, public_id, name) VALUES ($1, NULL, 'x')", org_id)
